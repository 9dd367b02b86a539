"""`evaluate` for molecules: draw ensembles of held-out molecules and measure them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import Progress

from sciffusion.core.denoiser import Denoiser
from sciffusion.core.samplers import Sampler
from sciffusion.domains.base import Evaluation
from sciffusion.domains.molecule.chem import to_mol
from sciffusion.domains.molecule.domain import MoleculeDomain, draw_coordinates
from sciffusion.domains.molecule.geom_protocol import SAMPLES
from sciffusion.domains.molecule.graph import MolGraph, Record
from sciffusion.domains.molecule.metrics import Measures, evaluate_ensembles
from sciffusion.domains.molecule.relax import Relaxer, relaxer
from sciffusion.domains.molecule.report import sections
from sciffusion.domains.molecule.stereo import right
from sciffusion.domains.sampling import world_size
from sciffusion.errors import InputError, at_least

Draw = Callable[[Sequence[MolGraph], Sequence[int]], Sequence[np.ndarray]]
"""Coordinates (N_i, 3) of each graph in Angstrom; the number names its random numbers."""


def draw_ensembles(
    draw: Draw,
    graphs: Sequence[MolGraph],
    counts: Sequence[int],
    tries: int = 20,
    first: Sequence[np.ndarray] = (),
    relax: Relaxer | None = None,
) -> tuple[list[Record], list[Record]]:
    """(conformers as they come, the same relaxed and with faulty ones drawn anew) of each molecule.

    Args:
        counts: conformers of each molecule.
        tries: draws of a conformer, at most; what is wrong after the last one is missing.
        first: what came of the first draws, where that is known: coordinates in order.
        relax: what is done to conformers before they are judged; of molecules that it does not know
            they are judged as they come.
    """
    asked = [k for k, n in enumerate(counts) for _ in range(n)]
    found: dict[int, np.ndarray] = {}
    wanted = list(range(len(asked)))
    for attempt in range(tries):
        numbers = [i + attempt * len(asked) for i in wanted]
        known = first if attempt == 0 else ()
        coords = known or draw([graphs[asked[i]] for i in wanted], numbers)
        first = first or coords
        here = dict(zip(wanted, coords, strict=True))
        for m, group in groupby(wanted, asked.__getitem__):
            rows = list(group)
            x = np.stack([here[i] for i in rows])
            if relax is not None:
                x = _relaxed(graphs[m], x, relax)
            good = right(x, graphs[m])
            found |= {i: x[k] for k, i in enumerate(rows) if good[k]}
        wanted = [i for i in wanted if i not in found]
        if not wanted:
            break

    def records(of: Mapping[int, np.ndarray]) -> list[Record]:
        by_graph: list[list[np.ndarray]] = [[] for _ in graphs]
        for i in sorted(of):
            by_graph[asked[i]].append(of[i])
        return [
            Record(graph, np.array(coords, np.float32).reshape(-1, len(graph), 3))
            for graph, coords in zip(graphs, by_graph, strict=True)
        ]

    return records(dict(enumerate(first))), records(found)


def _relaxed(
    graph: MolGraph, coords: Float[np.ndarray, "k n 3"], relax: Relaxer
) -> Float[np.ndarray, "k n 3"]:
    """The conformers moved to a minimum; as they are where `relax` does not know the molecule."""
    mol = to_mol(graph, coords)
    try:
        relax(mol)
    except InputError:
        return coords
    return np.stack([c.GetPositions() for c in mol.GetConformers()]).astype(coords.dtype)


def held_out(references: Sequence[Record], molecules: int, conformers: int) -> list[Record]:
    """Some molecules, evenly through the list, each with some conformers, evenly through theirs."""
    whole = [r for r in references if (r.graph.fragment == 0).all()]
    chosen = [whole[k] for k in evenly(len(whole), molecules)]
    return [
        replace(r, coords=r.coords[rows], energy=r.energy[rows] if len(r.energy) else r.energy)
        for r in chosen
        for rows in [evenly(len(r.coords), conformers)]
    ]


def evenly(n: int, most: int) -> np.ndarray:
    """At most `most` positions, evenly through n."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def evaluate(
    domain: MoleculeDomain,
    denoiser: Denoiser,
    sampler: Sampler,
    settings: Mapping[str, Any],
    device: torch.device,
) -> Evaluation | None:
    """Twice as many conformers as there are references of each held-out molecule, measured.

    Raises:
        InputError: nothing was held out, or settings that cannot be used.
    """
    at_least(settings, molecules=1, conformers=1, tries=1, energy=0, xtb=0, busters=0, seed=0)
    console = Console(stderr=True)
    relax = relaxer(settings["relax"], lambda text: console.print(text, markup=False))
    references = held_out(domain.data.val, settings["molecules"], settings["conformers"])
    if not references:
        raise InputError("no molecule was held out: raise data.val_share or give data.val=STORE")
    if world_size()[0] > 0:
        return None
    how = Measures.of(settings)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        graphs = [r.graph for r in references]
        counts = [SAMPLES * len(r.coords) for r in references]
        task = bar.add_task("drawing conformers", total=None)

        def draw(graphs: Sequence[MolGraph], numbers: Sequence[int]) -> list[np.ndarray]:
            return draw_coordinates(
                denoiser, sampler, graphs, numbers, settings["seed"], device,
                settings["most_atoms"],
            )  # fmt: skip

        start = time.perf_counter()
        first, returned = draw_ensembles(draw, graphs, counts, settings["tries"], relax=relax)
        seconds = time.perf_counter() - start
        bar.remove_task(task)
        task = bar.add_task("measuring", total=how.rounds * len(references))
        table = evaluate_ensembles(
            returned, references, how, seconds, first, lambda k: bar.advance(task, k)
        )
    return Evaluation(table, lambda page: sections(page, returned, references))
