"""Noise, coupling, loss and network of the molecule domain, each trained for equal compute.

    python benchmarks/molecule_ablation.py --store STORE [--minutes 6] [--only NAME ...]

Compute is this process's processor time on one thread; learning rates fall to their end with it.
Judged on held-out scaffolds of the store by the GEOM protocol, first draws as they come. Each
result is kept in benchmarks/cache, so a killed or shared benchmark goes on; the table is of all
that are there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from common import markdown, write_result
from rich.progress import Progress
from training import each_variant, trained

from sciffusion.core import samplers as S
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.times import Karras
from sciffusion.data.splits import Splits
from sciffusion.domains.molecule.domain import MoleculeDomain, draw_coordinates
from sciffusion.domains.molecule.evaluation import draw_ensembles, held_out
from sciffusion.domains.molecule.geom_protocol import COLUMNS, SAMPLES, geom_protocol
from sciffusion.domains.molecule.graph import MolGraph, Record
from sciffusion.domains.molecule.stereo import bonds_kept, obeys
from sciffusion.io.command import command
from sciffusion.io.config import compose
from sciffusion.metrics.bootstrap import mean_interval

ODE = "sampler=dpmpp_points"
FLOW = ["schedule=flow", "loss=flow_rigid", "space=harmonic", ODE]
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "points": ("points, zero centre of mass, EDM", []),
    "points-harmonic": ("points, harmonic, EDM", ["space=harmonic"]),
    "points-rigid": ("points, zero centre of mass, EDM, noise aligned", ["loss=edm_rigid", ODE]),
    "points-harmonic-rigid": (
        "points, harmonic, EDM, noise aligned", ["space=harmonic", "loss=edm_rigid", ODE]
    ),
    "points-flow": ("points, harmonic, flow and x0 loss, noise aligned", FLOW),
    "transformer": ("transformer, zero centre of mass, EDM", ["model=transformer"]),
    "transformer-flow": (
        "transformer, harmonic, flow and x0 loss, noise aligned (DiTMC's recipe)",
        ["model=transformer", "parameterization=x0", *FLOW],
    ),
}  # fmt: skip
"""What it is, and the settings that make it."""


def trained_variant(
    options: argparse.Namespace, settings: list[str], progress: Progress
) -> tuple[MoleculeDomain, Denoiser, dict[str, Any]]:
    """(domain, denoiser with averaged weights, what the training was)."""
    config = compose(
        "train",
        ["domain=molecule", "data=store", f"data.root={options.store}", f"seed={options.seed}",
         "trainer.accelerator=cpu", f"trainer.batch_size={options.batch}", *settings],
    )  # fmt: skip
    domain = MoleculeDomain(config["data"])
    found = trained(domain, config, progress, seconds=60 * options.minutes, bf16=options.bf16)
    return domain, *found


def measured(
    options: argparse.Namespace, domain: MoleculeDomain, denoiser: Denoiser, progress: Progress
) -> list[dict[str, Any]]:
    """Figures of held-out molecules at each number of calls."""
    splits: Splits[Record] = domain.data
    references = held_out(splits.val, options.molecules, 10)
    counts = [SAMPLES * len(r.coords) for r in references]
    rows = []
    for calls in options.calls:
        sampler = S.DPMSolverPP(calls, Karras(sigma_min=0.02))

        def draw(
            graphs: Sequence[MolGraph], numbers: Sequence[int], sampler: S.Sampler = sampler
        ) -> list[np.ndarray]:
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
                return draw_coordinates(denoiser, sampler, graphs, numbers)

        progress.log(f"drawing {sum(counts)} conformers with {calls} calls")
        first, _ = draw_ensembles(draw, [r.graph for r in references], counts, 1)
        pairs = list(zip(first, references, strict=True))
        result = geom_protocol(pairs, options.delta, 1)
        stereo = [
            obeys(r.coords, r.graph) for r in first
            if r.graph.tetra_sign.any() or r.graph.ez_sign.any()
        ]  # fmt: skip
        bonds = [bonds_kept(r.coords, r.graph) for r in first]
        rows.append({
            "calls": calls, "molecules": len(references), "conformers": sum(counts),
            "mean": result.mean(),
            "interval": {
                name: vars(mean_interval(column[~np.isnan(column)], 1000))
                for name, column in zip(COLUMNS, np.array(result.figures).T, strict=True)
            },
            "stereo": float(np.concatenate(stereo).mean()) if stereo else None,
            "bonds": float(np.concatenate(bonds).mean()),
        })  # fmt: skip
    return rows


def page(results: dict[str, dict], options: argparse.Namespace) -> str:
    cells = []
    for name, found in results.items():
        for row in found["rows"]:
            interval = row["interval"]
            cells.append(
                [VARIANTS[name][0], f"{found['parameters'] / 1e6:.2f}", found["steps"],
                 row["calls"],
                 *(f"{row['mean'][c]:.3f} ({interval[c]['low']:.3f} to {interval[c]['high']:.3f})"
                   for c in COLUMNS),
                 None if row["stereo"] is None else f"{100 * row['stereo']:.1f}",
                 f"{100 * row['bonds']:.1f}"]
            )  # fmt: skip
    row = next(iter(results.values()))["rows"][0]
    return "\n\n".join([
        "# Molecules: noise, coupling, loss and network at equal compute",
        f"Each trained for {options.minutes:g} minutes of one core in "
        f"{'bfloat16 autocast' if options.bf16 else 'float32'}, batches of {options.batch}, one "
        f"seed; {row['molecules']} molecules of held-out scaffolds, {row['conformers']} first "
        f"draws by DPM-Solver++ 2M, COV at {options.delta:g} A, AMR in A, 95% bootstrap intervals "
        "over molecules.",
        markdown(["", "M parameters", "steps", "calls", *COLUMNS, "stereo obeyed, %",
                  "bonds kept, %"], cells),
    ])  # fmt: skip


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--store", required=True, help="a prepared store; validation is split off by scaffold")
    add("--only", nargs="+", choices=list(VARIANTS), help="train these, where not done yet")
    add("--minutes", type=float, default=6.0, help="of one core, each")
    add("--batch", type=int, default=16)
    add("--molecules", type=int, default=48, help="of held-out scaffolds")
    add("--calls", type=int, nargs="+", default=[10, 30])
    add("--delta", type=float, default=0.75, help="of COV, in Angstrom")
    add("--bf16", action=argparse.BooleanOptionalAction, default=True)
    add("--seed", type=int, default=0)
    add("--name", default="molecule_ablation", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)

    def work(settings: list[str], progress: Progress) -> dict[str, Any]:
        *model, about = trained_variant(options, settings, progress)
        return about | {"rows": measured(options, *model, progress)}

    results = each_variant(VARIANTS, options, "molecule", work)
    text = page(results, options)
    path = write_result(options.name, vars(options), {"variants": results}, text)
    print(f"{text}\n\nwrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    command(main, options_parser().format_help())
