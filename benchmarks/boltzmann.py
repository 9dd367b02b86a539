"""A molecule's Boltzmann averages: conformers with exact densities, reweighted.

    python benchmarks/boltzmann.py [--quick] [--smiles ClCCCl] [--minutes 6]

A network trained on MMFF94 Langevin frames of one molecule with its hydrogens draws conformers with
their exact density; weights make them an ensemble of MMFF94, and of GFN2-xTB where tblite is
installed. The reference is Langevin dynamics of other seeds, longer than the training's, with
standard errors over its chains.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from common import RESULTS, bar, kept, markdown, write_result
from rich.progress import Progress
from training import trained

from sciffusion.atomic import atomic_path
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.likelihood import ProbabilityFlow
from sciffusion.domains.molecule.boltzmann import Proposals, propose, reweighted
from sciffusion.domains.molecule.chem import from_smiles
from sciffusion.domains.molecule.domain import MoleculeDomain
from sciffusion.domains.molecule.energy import energies, field
from sciffusion.domains.molecule.graph import MolGraph
from sciffusion.domains.molecule.langevin import rotatable, sampled, torsion_angle
from sciffusion.io.command import command
from sciffusion.io.config import compose
from sciffusion.metrics.importance import (
    effective_sample_size,
    normalised,
    truncated,
    weighted_mean,
)
from sciffusion.metrics.js import js_divergence

BINS = np.linspace(-180, 180, 25)
QUICK = {
    "frames": 12, "chains": 4, "reference": 20, "minutes": 0.1, "samples": 4, "dim": 16,
    "layers": 1, "tolerance": 1e-2, "sigma_min": 0.1,
}  # fmt: skip


def torsions(coords: np.ndarray, graph: MolGraph) -> dict[str, np.ndarray]:
    """Degrees about each bond between heavy atoms that has heavy atoms on both sides."""
    neighbours: dict[int, list[int]] = {k: [] for k in range(len(graph))}
    for i, j in graph.bonds.tolist():
        neighbours[i].append(j)
        neighbours[j].append(i)
    found = {}
    for i, j, _ in rotatable(graph):
        a, b = (
            sorted((k for k in neighbours[p] if k != q), key=lambda k: -int(graph.z[k]))
            for p, q in ((i, j), (j, i))
        )
        if a and b and graph.heavy[a[0]] and graph.heavy[b[0]]:
            found["-".join(f"{k}" for k in (a[0], i, j, b[0]))] = torsion_angle(
                coords, (a[0], i, j, b[0])
            )
    return found


def histogram(angle: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Folded at 0: the molecule's mirror image weighs the same, but either has a seed's luck."""
    counts = np.histogram(angle, BINS, weights=weight)[0]
    both = counts + counts[::-1]
    return both / both.sum()


def trained_generator(
    options: argparse.Namespace, progress: Progress
) -> tuple[MoleculeDomain, Denoiser, dict[str, Any]]:
    """(domain, denoiser, what the training was)."""
    config = compose(
        "train",
        ["domain=molecule", "data=frames", f"data.smiles={options.smiles}",
         f"data.temperature={options.temperature}", f"data.frames={options.frames}",
         f"data.chains={options.chains}",
         f"model.dim={options.dim}", "model.pair_dim=16", "model.bond_layers=2",
         f"model.layers={options.layers}", "schedule.sigma_max=10", "loss.times.mean=-1.8",
         "loss.times.std=1.4", f"trainer.batch_size={options.batch}", "optimizer.lr=2e-3",
         f"seed={options.seed}", "trainer.accelerator=cpu"],
    )  # fmt: skip
    domain = MoleculeDomain(config["data"])
    denoiser, about = trained(domain, config, progress, seconds=60 * options.minutes)
    return domain, denoiser, about


def measured(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """What is drawn, what it weighs, and the reference."""
    graph = from_smiles(options.smiles)
    task = progress.add_task("reference dynamics", total=None)
    start = time.perf_counter()
    reference = sampled(
        graph, options.chains, options.reference, options.temperature, seed=options.seed + 1000,
        progress=lambda k: progress.advance(task, k),
    )  # fmt: skip
    seconds = {"reference": time.perf_counter() - start}
    progress.remove_task(task)
    _, denoiser, about = trained_generator(options, progress)
    task = progress.add_task("drawing with densities", total=options.samples)
    flow = ProbabilityFlow(
        denoiser, rtol=options.tolerance, atol=options.tolerance, sigma_min=options.sigma_min
    )
    start = time.perf_counter()
    drawn = propose(
        flow, graph, options.samples, options.seed, most_atoms=64 * len(graph),
        progress=lambda k: progress.advance(task, k),
    )  # fmt: skip
    seconds["samples"] = time.perf_counter() - start
    fields = ["mmff"] + (["xtb"] if importlib.util.find_spec("tblite") else [])
    energy = {name: energies(field(name)(graph), drawn.coords) for name in fields}
    weights = {name: reweighted(drawn, e, options.temperature) for name, e in energy.items()}
    return about | {
        "degrees": float(3 * (len(graph) - 1)), "calls": drawn.nfe, "seconds_of": seconds,
        "fields": {
            name: {
                "log_w": w.tolist(), "energy": energy[name].tolist(),
                "ess": effective_sample_size(w),
                "ess_truncated": effective_sample_size(truncated(w)),
            }
            for name, w in weights.items()
        },
        **averages(graph, reference.coords, reference.energy, drawn, energy["mmff"],
                   weights["mmff"]),
    }  # fmt: skip


def averages(
    graph: MolGraph,
    reference: np.ndarray,
    reference_energy: np.ndarray,
    drawn: Proposals,
    energy: np.ndarray,
    log_w: np.ndarray,
) -> dict[str, Any]:
    """Mean energy and torsions: reference, network as it is, reweighted."""
    rows = []

    def add(name: str, unit: str, true: np.ndarray, values: np.ndarray) -> None:
        """`true` (F, K), values (n,)."""
        chains = true.mean(0)
        plain = weighted_mean(values, np.zeros_like(log_w))
        rows.append({
            "name": name, "unit": unit, "reference": float(chains.mean()),
            "reference_error": float(chains.std(ddof=1) / len(chains) ** 0.5),
            "network": asdict(plain), "reweighted": asdict(weighted_mean(values, log_w)),
        })  # fmt: skip

    finite = np.isfinite(energy)  # atoms in one place have no energy, and no weight
    add("energy", "kcal/mol", reference_energy, np.where(finite, energy, energy[finite].max()))
    true, mine = torsions(reference, graph), torsions(drawn.coords, graph)
    curves, weight = {}, normalised(log_w)
    for name in true:
        add(
            f"share of torsion {name} within 120 degrees of cis",
            "",
            (np.abs(true[name]) < 120).astype(float),
            (np.abs(mine[name]) < 120).astype(float),
        )
        few = np.random.default_rng(0).choice(true[name].ravel(), len(log_w))
        of = {
            "reference": histogram(true[name].ravel()), "network": histogram(mine[name]),
            "reweighted": histogram(mine[name], weight),
        }  # fmt: skip
        curves[name] = {k: v.tolist() for k, v in of.items()} | {
            "js": {
                "floor": js_divergence(histogram(few), of["reference"]),
                **{k: js_divergence(of[k], of["reference"]) for k in ("network", "reweighted")},
            }
        }
    sample = np.random.default_rng(0).choice(reference_energy.ravel(), 4000).tolist()
    return {"averages": rows, "torsions": curves, "reference_energy": sample}


def picture(found: dict[str, Any], title: str, stem: str) -> None:
    """Torsions and energies: reference, network, reweighted."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    curves, mmff = found["torsions"], found["fields"]["mmff"]
    figure, axes = plt.subplots(
        1, len(curves) + 1, figsize=(4.4 * (len(curves) + 1), 3.4), layout="constrained"
    )
    middle, colours = (BINS[1:] + BINS[:-1]) / 2, {"reference": "k", "network": "C0"}
    for axis, (name, curve) in zip(axes, curves.items(), strict=False):
        for kind in ("reference", "network", "reweighted"):
            style = {"color": colours.get(kind, "C1"), "ls": "-" if kind != "network" else "--"}
            axis.step(middle, curve[kind], where="mid", label=kind, **style)
        axis.set(xlabel=f"torsion {name}, degrees", ylabel="share", title=title)
        axis.legend(fontsize=8)
    energy, log_w = np.array(mmff["energy"]), np.array(mmff["log_w"])
    true = np.array(found["reference_energy"])
    low, high = np.quantile(true, [0.001, 0.999])
    bins = np.linspace(low - 1, high + 0.5 * (high - low), 40)
    axis, shown = axes[-1], np.isfinite(energy) & np.isfinite(log_w)
    weight = normalised(log_w)
    for kind, values, w in (
        ("reference", true, np.full(len(true), 1 / len(true))),
        ("network", energy[shown], np.full(shown.sum(), 1 / len(energy))),
        ("reweighted", energy[shown], weight[shown]),
    ):  # fmt: skip
        style = {"color": colours.get(kind, "C1"), "ls": "-" if kind != "network" else "--"}
        axis.hist(values, bins, weights=w, histtype="step", label=kind, **style)
    axis.set(xlabel="MMFF94 energy, kcal/mol", ylabel="share")
    axis.legend(fontsize=8)
    RESULTS.mkdir(exist_ok=True)
    with atomic_path(RESULTS / f"{stem}.png") as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def page(found: dict[str, Any], options: argparse.Namespace) -> str:
    def shown(v: dict[str, float]) -> str:
        return f"{v['value']:.3f} ({v['low']:.3f} to {v['high']:.3f})"

    averages = [
        [r["name"] + (f", {r['unit']}" if r["unit"] else ""),
         f"{r['reference']:.3f} +- {r['reference_error']:.3f}", shown(r["network"]),
         shown(r["reweighted"])]
        for r in found["averages"]
    ]  # fmt: skip
    averages += [
        [
            f"JS of torsion {name}, bits (reference: {options.samples} of it)",
            *(curve["js"][k] for k in ("floor", "network", "reweighted")),
        ]
        for name, curve in found["torsions"].items()
    ]
    fields = [
        [{"mmff": "MMFF94", "xtb": "GFN2-xTB"}[name], options.samples, f["ess"],
         f"{100 * f['ess'] / options.samples:.1f}", f["ess_truncated"]]
        for name, f in found["fields"].items()
    ]  # fmt: skip
    return "\n\n".join([
        f"# Boltzmann averages of {options.smiles}",
        f"Boltzmann generator of {options.smiles} at {options.temperature:g} K, hydrogens "
        f"included, {found['degrees']:g} degrees of freedom: {found['steps']} steps of training on "
        f"MMFF94 Langevin frames, {options.samples} samples with exact densities in "
        f"{found['calls']} calls and {found['seconds_of']['samples']:.0f} s. Reference: Langevin "
        f"with Metropolis turns, {options.chains} chains of {options.reference} frames.",
        markdown(["weighed by", "samples", "effective", "%", "effective, weights truncated"],
                 fields),
        markdown(["average", "reference", "network", "reweighted"], averages),
        f"![torsions and energies]({options.name}.png)",
    ])  # fmt: skip


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="small numbers throughout: does it run?")
    add("--smiles", default="ClCCCl", help="CCCC costs five times as much a sample")
    add("--temperature", type=float, default=400.0)
    add("--frames", type=int, default=400, help="to train on, of each chain")
    add("--chains", type=int, default=32, help="of either Langevin run")
    add("--reference", type=int, default=800, help="frames of each chain")
    add("--minutes", type=float, default=6.0, help="of training on the molecule")
    add("--dim", type=int, default=48)
    add("--layers", type=int, default=3)
    add("--batch", type=int, default=64)
    add("--samples", type=int, default=256)
    add("--tolerance", type=float, default=1e-4)
    add("--sigma-min", type=float, default=0.01, help="Angstrom; weights make good for it")
    add("--seed", type=int, default=0)
    add("--name", default="boltzmann", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    if options.quick:
        vars(options).update(QUICK, name=f"{options.name}_quick")
    torch.set_num_threads(1)
    recipe = {k: v for k, v in vars(options).items() if k not in ("name", "quick")}
    with bar() as progress:
        found = kept("boltzmann", recipe, lambda: measured(options, progress))
    assert found is not None
    picture(found, f"{options.smiles}, {options.temperature:g} K", options.name)
    text = page(found, options)
    path = write_result(options.name, vars(options), found, text)
    print(f"{text}\n\nwrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    command(main, options_parser().format_help())
