"""From noise to proteins known by heart: one alone, and three by class label.

    python benchmarks/protein_overfit.py --store STORE [--steps 2000] [--length 64]

The proteins are the first chains of the store of about that length. The domain's own recipe, but
for learning by heart: a higher rate, more training where noise hides the fold, and residues told
how far they are from the chain's ends. Then samples are drawn by a plain ODE solver; what is told
is their RMSD to the protein asked for over N, CA, C and O (Kabsch, never reflected), and that to
its mirror image. Each number of proteins is kept in benchmarks/cache.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from common import bar, kept, markdown, write_result
from rich.progress import Progress
from training import trained

from sciffusion.core import samplers as S
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.geometry import kabsch
from sciffusion.core.times import Karras
from sciffusion.domains.protein.backbone import Backbone
from sciffusion.domains.protein.domain import ProteinDomain
from sciffusion.domains.protein.store import read_store
from sciffusion.errors import InputError
from sciffusion.io.command import command
from sciffusion.io.config import compose

MIRROR = torch.tensor([1.0, 1.0, -1.0])


def learned(
    proteins: list[Backbone], options: argparse.Namespace, progress: Progress
) -> tuple[ProteinDomain, Denoiser, float]:
    """(domain, denoiser with averaged weights, seconds) after the training."""
    config = compose(
        "train",
        ["domain=protein", "model=backbone", "data=backbones", "data.root=none",
         f"seed={options.seed}", "model.classes=-1", "drop_condition=0", "model.ends=32",
         f"trainer.batch_size={options.batch * len(proteins)}", "trainer.ema_decay=0.99",
         "rate.lr=3e-3", "loss.times.mean=2.2"],
    )  # fmt: skip
    domain = ProteinDomain.of(proteins, proteins)
    domain.tells = (0.0, 0.0)  # but the class
    denoiser, about = trained(domain, config, progress, steps=options.steps)
    return domain, denoiser, about["seconds"]


def rmsd(x: torch.Tensor, truth: torch.Tensor) -> list[float]:
    turned = kabsch(truth.expand_as(x), x)
    return ((turned - x) ** 2).sum(-1).mean((1, 2)).sqrt().tolist()


def measured(proteins: list[Backbone], options: argparse.Namespace, progress: Progress) -> dict:
    domain, denoiser, seconds = learned(proteins, options, progress)
    sampler = S.DPMSolverPP(50, Karras(sigma_min=0.01))
    rows = []
    for label, protein in enumerate(proteins):
        request = {"lengths": [[len(protein)]], "label": label}
        shape, cond = domain.prior_cond(torch.arange(options.samples), request)
        out = sampler(denoiser, shape, cond, options.seed, options.samples)
        x, truth = out.x[:, : len(protein)], torch.tensor(protein.coords)[None]
        rows.append({"name": protein.name, "residues": len(protein), "rmsd": rmsd(x, truth),
                     "mirror": rmsd(x, truth * MIRROR)})  # fmt: skip
    return {"seconds": seconds, "rows": rows}


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--store", required=True, help="a prepared store of chains")
    add("--length", type=int, default=64, help="of the proteins, about")
    add("--counts", type=int, nargs="+", default=[1, 3], help="proteins known by heart")
    add("--steps", type=int, default=2000)
    add("--batch", type=int, default=6, help="copies of each protein a step")
    add("--samples", type=int, default=8, help="of each protein")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--seed", type=int, default=0)
    add("--name", default="protein_overfit", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    near = sorted(read_store(options.store), key=lambda b: (abs(len(b) - options.length), b.name))
    kinds: dict[Any, Backbone] = {}
    for b in near:  # a cluster each, so that the three are different folds
        kinds.setdefault(b.cluster if b.cluster >= 0 else b.name, b)
    if len(kinds) < max(options.counts):
        raise InputError(f"{options.store} holds {len(kinds)} clusters: give another store")
    chosen = list(kinds.values())
    recipe = {k: v for k, v in vars(options).items() if k not in ("counts", "name", "threads")}
    with bar() as progress:
        found = {}
        for k in options.counts:
            work = partial(measured, chosen[:k], options, progress)
            found[k] = kept(f"overfit-{k}", recipe, work)
    text = page(found, options)
    path = write_result(options.name, vars(options), {"known": found}, text)
    print(f"{text}\n\nwrote {path} and {path.with_suffix('.md')}")


def page(found: dict[int, dict], options: argparse.Namespace) -> str:
    cells = [
        [count, row["name"], row["residues"], f"{np.median(row['rmsd']):.2f}",
         f"{max(row['rmsd']):.2f}", f"{min(row['mirror']):.2f}", f"{part['seconds']:.0f}"]
        for count, part in found.items()
        for row in part["rows"]
    ]  # fmt: skip
    return "\n\n".join([
        "# Backbones known by heart",
        f"{options.steps} steps of {options.batch} copies of each, then {options.samples} samples "
        "of each from noise by DPM-Solver++ 2M in 50 calls; RMSD over N, CA, C, O in Angstrom.",
        markdown(["proteins", "asked for", "residues", "RMSD, median", "RMSD, worst",
                  "to its mirror image, least", "training, s"], cells),
    ])  # fmt: skip


if __name__ == "__main__":
    command(main, options_parser().format_help())
