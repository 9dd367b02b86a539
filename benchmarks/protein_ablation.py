"""The equivariant network beside the plain transformer, each trained for equal compute.

    python benchmarks/protein_ablation.py --store STORE --val STORE [--minutes 10] [--only NAME ...]

Compute is this process's processor time on one thread; learning rates fall to their end with it.
Both are drawn and measured alike: as `evaluate` does, beside held-out chains, none left out. Each
result is kept in benchmarks/cache, so a killed or shared benchmark goes on; the table is of all
that are there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from backbones import cell, measured
from common import markdown, write_result
from rich.progress import Progress
from training import each_variant, trained

from sciffusion.domains.protein.domain import ProteinDomain
from sciffusion.domains.protein.requests import Settings
from sciffusion.io.build import build
from sciffusion.io.command import command
from sciffusion.io.config import compose

VARIANTS: dict[str, tuple[str, list[str]]] = {
    "equivariant": ("equivariant, lmax 1", ["model=backbone"]),
    "equivariant-2": (
        "equivariant, lmax 2",
        ["model=backbone", "model.irreps=128x0e + 32x1e + 16x2e",
         "model.edge=64x0e + 16x1e + 8x2e", "model.value=64x0e + 16x1e + 8x2e",
         "model.mixed=16x0e + 16x1e + 16x2e"],
    ),
    "transformer": ("transformer, random rotations", ["model=backbone_transformer"]),
}  # fmt: skip
"""What it is, and the settings that make it."""
COLUMNS = (
    "CA-CA valid", "residues that clash", "left-handed helix", "JS, CA angle and dihedral",
    "helix share off, P-SEA", "strand share off, P-SEA", "radius of gyration off",
)  # fmt: skip


def compared(options: argparse.Namespace, settings: list[str], progress: Progress) -> dict:
    """What the training was, and the table of samples."""
    config = compose(
        "train",
        ["domain=protein", "data=backbones", f"data.root={options.store}",
         f"data.val={options.val}", f"data.most={options.most}", f"seed={options.seed}",
         "trainer.accelerator=cpu", f"trainer.batch_size={options.batch}", *settings],
    )  # fmt: skip
    domain = ProteinDomain(config["data"])
    denoiser, about = trained(domain, config, progress, seconds=60 * options.minutes)
    asked = Settings(n=options.samples, length=options.lengths, seed=1)
    how = {"pairs": 0, "novelty": 0, "workers": 1}
    found = measured(domain, denoiser, build(config["sampler"]), asked, how, progress)
    return about | {"title": found["title"], "rows": {c: found["rows"][c] for c in COLUMNS}}


def page(results: dict[str, dict], options: argparse.Namespace) -> str:
    cells = [
        [VARIANTS[name][0], f"{found['parameters'] / 1e6:.2f}", found["steps"],
         *(cell(found["rows"][c]) for c in COLUMNS)]
        for name, found in results.items()
    ]  # fmt: skip
    first = next(iter(results.values()))
    floors = [f"{first['rows'][c]['floor']:.3f}" for c in COLUMNS]
    cells.append(["floor: real chains", None, None, *floors])
    return "\n\n".join([
        "# Backbones: equivariant network and transformer at equal compute",
        f"Each trained for {options.minutes:g} minutes of one core in float32, batches of "
        f"{options.batch} chains of at most {options.most} residues, one seed; {first['title']}, "
        "by the domain's own sampler, 95% bootstrap intervals.",
        markdown(["", "M parameters", "steps", *COLUMNS], cells),
    ])  # fmt: skip


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--store", required=True, help="a prepared store")
    add("--val", required=True, help="another one, of held-out clusters")
    add("--only", nargs="+", choices=list(VARIANTS), help="train these, where not done yet")
    add("--minutes", type=float, default=10.0, help="of one core, each")
    add("--batch", type=int, default=8)
    add("--most", type=int, default=128, help="residues of a chain")
    add("--samples", type=int, default=24)
    add("--lengths", default="64-128")
    add("--seed", type=int, default=0)
    add("--name", default="protein_ablation", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    results = each_variant(VARIANTS, options, "protein", partial(compared, options))
    text = page(results, options)
    path = write_result(options.name, vars(options), {"variants": results}, text)
    print(f"{text}\n\nwrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    command(main, options_parser().format_help())
