"""Conformers per second by molecule size, beside ETKDG, with memory and the growth of cost.

    python benchmarks/molecule_speed.py --run RUN [--calls 20] [--device cuda] [--quick]

Molecules are chains of drug-like parts (amides, rings, a stereo centre) of an exact number of heavy
atoms. Every round times ours and RDKit's ETKDGv3 on the same molecule in turns and with the same
number of CPU threads; what is reported is the ratio within rounds. Memory is that of a fresh
process (or of the GPU) above what the loaded model takes.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from common import (
    growth,
    interleaved,
    markdown,
    memory_above,
    ratio,
    shown,
    spread,
    stopwatch,
    write_result,
)
from conformer_sets import molecule_run
from rdkit import rdBase
from rdkit.Chem import rdDistGeom

from sciffusion.core import samplers as S
from sciffusion.domains.base import choose_device
from sciffusion.domains.molecule.chem import from_smiles, to_mol
from sciffusion.domains.molecule.domain import draw_coordinates
from sciffusion.domains.molecule.graph import MolGraph
from sciffusion.errors import InputError
from sciffusion.io.build import build
from sciffusion.io.command import command

PARTS = (("N[C@@H](C)C(=O)", 5), ("Nc1ccc(cc1)C(=O)", 9), ("NCC(=O)", 4), ("N1CCC(CC1)C(=O)", 8))
MIX = tuple(range(16, 41, 2))
"""Heavy atoms of the mixed batch: what drug-like libraries hold."""
OURS, PEER = "sciffusion", "ETKDGv3"


def molecule(heavy: int) -> MolGraph:
    """A chain of so many heavy atoms: CC(=O)-, parts in turn, an amine with an alkyl tail."""
    smiles, left = "CC(=O)", heavy - 3
    for part, size in cycle(PARTS):
        if left < size + 2:
            break
        smiles, left = smiles + part, left - size
    return from_smiles(smiles + "N" + "C" * (left - 1), f"{heavy} heavy atoms")


class Ours:
    """The run, ready to draw."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = choose_device(options.device)
        self.options = options
        self.domain, self.denoiser, config, self.digest = molecule_run(options.run, self.device)
        own = build(config["sampler"])
        self.sampler = own if options.calls is None else S.DPMSolverPP(options.calls, own.grid)

    def draw(self, graphs: Sequence[MolGraph]) -> Callable[[], Any]:
        """One conformer of each; other random numbers at every call."""
        start = 0

        def work() -> None:
            nonlocal start
            numbers = range(start, start + len(graphs))
            start += len(graphs)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16):
                draw_coordinates(
                    self.denoiser, self.sampler, graphs, list(numbers), 0, self.device,
                    self.options.most_atoms,
                )  # fmt: skip

        return work


def embed(graph: MolGraph, n: int, threads: int) -> Callable[[], Any]:
    """n conformers by ETKDGv3; another seed at every call."""
    mol, parameters = to_mol(graph), rdDistGeom.ETKDGv3()
    parameters.numThreads, parameters.randomSeed = threads, 1

    def work() -> None:
        parameters.randomSeed += 1000
        rdDistGeom.EmbedMultipleConfs(mol, n, parameters)

    return work


def peak_memory(options: argparse.Namespace, heavy: int) -> float | None:
    """MiB that drawing takes above the loaded model; in a process of its own, None if unknown."""
    torch.set_num_threads(options.threads)
    ours, graph = Ours(options), molecule(heavy)
    ours.draw([graph])()  # libraries that load at the first call are no cost of size
    return memory_above(ours.draw([graph] * options.conformers), ours.device)


def fresh_memory(options: argparse.Namespace, heavy: int) -> float | None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(peak_memory, options, heavy).result()


def timed(ours: Ours, graphs: Sequence[MolGraph], options: argparse.Namespace, label: str) -> dict:
    """Seconds a conformer of both, over rounds."""
    peers = [embed(g, options.embedded, options.threads) for g in unique(graphs)]

    def all_peers() -> None:
        for work in peers:
            work()

    timers = {OURS: stopwatch(ours.draw(graphs)), PEER: stopwatch(all_peers)}
    seconds = interleaved(timers, options.repeats, 1, label)
    counts = {OURS: len(graphs), PEER: options.embedded * len(peers)}
    return {k: [s / counts[k] for s in v] for k, v in seconds.items()}


def unique(graphs: Sequence[MolGraph]) -> list[MolGraph]:
    return list({id(g): g for g in graphs}.values())


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--run", required=True, help="directory of a trained run, or a .safetensors file")
    add("--sizes", type=int, nargs="+", default=list(range(10, 101, 10)), help="heavy atoms")
    add("--calls", type=int, help="of DPM-Solver++ 2M; by default the run's own sampler")
    add("--conformers", type=int, help="ours at a time: 32, on a GPU 2048")
    add("--embedded", type=int, default=4, help="ETKDG's at a time")
    add("--repeats", type=int, default=5, help="rounds of timing")
    add("--threads", type=int, default=torch.get_num_threads(), help="CPU threads, of both")
    add("--most-atoms", type=int, help="of a batch; by default what suits the device")
    add("--bf16", action="store_true", help="bfloat16 where PyTorch allows it")
    add("--device", default="auto")
    add("--quick", action="store_true", help="small numbers, to see that it runs")
    add("--name", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    if options.quick:
        options.sizes, options.repeats, options.embedded = options.sizes[:2], 2, 1
        options.conformers, options.calls = options.conformers or 4, 2
    if min(options.sizes) < 10:
        raise InputError("--sizes must be 10 heavy atoms or more")
    torch.set_num_threads(options.threads)
    ours = Ours(options)
    gpu = ours.device.type == "cuda"
    options.conformers = options.conformers or (2048 if gpu else 32)
    options.name = options.name or "molecule_speed" + ("_quick" if options.quick else "")
    rows = []
    for heavy in options.sizes:
        graph = molecule(heavy)
        seconds = timed(ours, [graph] * options.conformers, options, f"{heavy} heavy atoms")
        rows.append({"heavy": heavy, "atoms": len(graph), "smiles": graph.smiles,
                     "seconds": seconds, "memory": fresh_memory(options, heavy)})  # fmt: skip
    kinds = [molecule(h) for h in MIX]
    many = [kinds[k % len(kinds)] for k in range(options.conformers)]
    mixed = timed(ours, many, options, "mixed sizes")
    atoms = [r["atoms"] for r in rows]
    exponents = {
        "seconds": {k: growth(atoms, [spread(r["seconds"][k])["median"] for r in rows])
                    for k in (OURS, PEER)},
        "memory": growth(atoms, [max(r["memory"] or 1.0, 1.0) for r in rows]),
    }  # fmt: skip
    body = {"run": Path(options.run).name, "weights": ours.digest, "rdkit": rdBase.rdkitVersion,
            "sampler": f"{type(ours.sampler).__name__}, {ours.sampler.steps} steps",
            "rows": rows, "mixed": mixed, "exponents": exponents}  # fmt: skip
    text = page(body, options, str(ours.device))
    settings = vars(options) | {"run": Path(options.run).name}
    path = write_result(options.name, settings, body, text)
    print(text)
    print(f"\nwrote {path} and {path.with_suffix('.md')}")


def page(body: dict[str, Any], options: argparse.Namespace, device: str) -> str:
    def rates(seconds: dict[str, list[float]]) -> list[str]:
        each = [shown(spread([1 / s for s in seconds[k]])) for k in (OURS, PEER)]
        return [*each, shown(ratio(seconds[PEER], seconds[OURS]))]

    cells = [
        [r["heavy"], r["atoms"], *rates(r["seconds"]), r["memory"] and f"{r['memory']:.0f}"]
        for r in body["rows"]
    ]
    cells.append([f"mixed, {MIX[0]} to {MIX[-1]}", None, *rates(body["mixed"]), None])
    grows = body["exponents"]
    return "\n\n".join([
        f"# Conformers per second by size, on {device}",
        f"{OURS}: {body['sampler']}, {options.conformers} conformers at a time"
        f"{', bfloat16' if options.bf16 else ''}; {PEER} of RDKit {body['rdkit']}, "
        f"{options.embedded} at a time, on the CPU; {options.threads} CPU threads each. Median and "
        f"quartiles of {options.repeats} rounds in turns.",
        markdown(["heavy atoms", "atoms", f"{OURS}, 1/s", f"{PEER}, 1/s", f"{OURS} / {PEER}",
                  "memory, MiB"], cells),
        f"Cost of a conformer grows as atoms to the power {grows['seconds'][OURS]:.2f} ({OURS}) "
        f"and {grows['seconds'][PEER]:.2f} ({PEER}), memory to {grows['memory']:.2f}.",
    ])  # fmt: skip


if __name__ == "__main__":
    command(main, options_parser().format_help())
