"""Backbones beside real chains: python benchmarks/protein_backbones.py --train STORE --test STORE

Draws samples 0 to n - 1 of one seed with the packaged weights (or a run's), leaves none out, and
measures them as `evaluate` does, beside the test chains; floors are as many training chains. Also
with fewer network calls, with nothing moved apart and with nothing told. Each way is kept in
benchmarks/cache, so a killed or shared benchmark goes on; the table is of all that are there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

from backbones import cell, measured
from common import markdown, weights_digest, write_result
from rich.progress import Progress
from training import each_variant

from sciffusion.domains.base import load_model
from sciffusion.domains.protein.data import Splits
from sciffusion.domains.protein.domain import ProteinDomain
from sciffusion.domains.protein.requests import Settings
from sciffusion.domains.protein.store import read_store
from sciffusion.io.build import build
from sciffusion.io.command import command
from sciffusion.sample import configure, source

WAYS: dict[str, tuple[str, list[str]]] = {
    "default": ("as `sample` does", []),
    "50": ("50 calls", ["sampler.steps=50"]),
    "25": ("25 calls", ["sampler.steps=25"]),
    "apart": ("nothing moved apart", ["apart=false"]),
    "told": ("nothing told", ["typical=false"]),
}
"""What it is, and the settings of `sample` that make it."""
FIGURES = (
    "CA-CA valid", "residues that clash", "left-handed helix", "JS, CA angle and dihedral",
    "JS, Ramachandran", "helix share off, P-SEA", "strand share off, P-SEA",
    "radius of gyration off", "relative contact order off", "TM of pairs of samples, mean",
    "clusters a sample", "TM to the nearest training chain, mean", "copies, TM > 0.95",
)  # fmt: skip


def drawn(options: argparse.Namespace, settings: list[str], progress: Progress) -> dict[str, Any]:
    """The figures of one way."""
    asked = [f"length={options.lengths}", f"n={options.n}", f"seed={options.seed}"]
    config = configure("sample", [f"run={options.run}", *asked, *settings])
    domain, denoiser, _ = load_model(options.run)
    assert isinstance(domain, ProteinDomain)
    domain.splits = Splits(list(read_store(options.train)), list(read_store(options.test)))
    how = {"pairs": options.pairs, "workers": 1}
    return measured(
        domain, denoiser, build(config["sampler"]), Settings.of(config), how, progress
    )  # fmt: skip


def page(results: dict[str, dict[str, Any]], options: argparse.Namespace) -> str:
    first = next(iter(results.values()))
    rows = [
        [name, *(cell(r["rows"][name]) for r in results.values()), first["rows"][name]["floor"]]
        for name in FIGURES
    ]
    seconds = (f"{r['seconds'] / options.n:.1f}" for r in results.values())
    rows.append(["seconds a sample, one core", *seconds, None])
    told = [n for n in FIGURES if "share off" in n or "radius" in n]
    return "\n\n".join([
        "# Backbones beside real chains that the weights have not seen",
        f"{first['title']}; samples 0 to {options.n - 1} of seed {options.seed}, none left out, "
        "95% bootstrap intervals; floors are as many training chains.",
        markdown(["", *(WAYS[name][0] for name in results), "floor"], rows),
        " ".join(f"{n}: {first['rows'][n]['note']}." for n in told),
    ])  # fmt: skip


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--train", required=True, help="a prepared store of what the weights were trained on")
    add("--test", required=True, help="another one, of chains they were not")
    add("--run", help="a trained run; by default the packaged weights")
    add("--only", nargs="+", choices=list(WAYS), help="draw these, where not done yet")
    add("--n", type=int, default=100)
    add("--lengths", default="64-128")
    add("--pairs", type=int, default=1000, help="of samples that are aligned")
    add("--seed", type=int, default=0)
    add("--name", default="protein_backbones", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    options.run = options.run or source(["domain=protein"])
    options.weights = weights_digest(options.run)
    results = each_variant(WAYS, options, "backbones", partial(drawn, options))
    text = page(results, options)
    path = write_result(options.name, vars(options), {"ways": results}, text)
    print(f"{text}\n\nwrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    command(main, options_parser().format_help())
