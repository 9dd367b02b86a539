"""What the molecule benchmarks draw and keep: references, the run's conformers, those of peers.

Conformers lie in benchmarks/cache by references, weights and settings, a few molecules a file, so
a killed benchmark goes on. After a change of sciffusion/core delete that folder.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import HERE, weights_digest
from rdkit import rdBase
from rich.progress import Progress

from sciffusion.atomic import atomic_path
from sciffusion.core.samplers import Sampler
from sciffusion.data.pool import shared_out
from sciffusion.domains.base import choose_device, load_model
from sciffusion.domains.molecule.data import by_scaffold
from sciffusion.domains.molecule.domain import draw_coordinates
from sciffusion.domains.molecule.energy import relaxed
from sciffusion.domains.molecule.evaluation import draw_ensembles, evenly
from sciffusion.domains.molecule.gather import Conformer, gather
from sciffusion.domains.molecule.geom_protocol import SAMPLES
from sciffusion.domains.molecule.graph import MolGraph, Record
from sciffusion.domains.molecule.peers import peer_records
from sciffusion.domains.molecule.readers import read_molecules
from sciffusion.domains.molecule.store import read_store
from sciffusion.errors import InputError
from sciffusion.io.build import build

CHUNK = 8  # molecules a file of the cache

Drawn = tuple[list[Record], float]
"""Conformers of every molecule, and the seconds that they took."""


def molecule_run(path: str, device: torch.device) -> tuple[Any, Any, dict[str, Any], str]:
    """(domain, denoiser, config, digest of the weights) of a run or a .safetensors file.

    Raises:
        InputError: it cannot be read, or it is no run of the molecule domain.
    """
    domain, denoiser, config = load_model(path)
    if domain.name != "molecule":
        raise InputError(f"{path} is a run of the {domain.name} domain: give one of molecules")
    return domain, denoiser.to(device), config, weights_digest(path)


def read_references(
    path: str, limit: int | None = None, share: float | None = None
) -> list[Record]:
    """Molecules with their conformers, from a prepared store or a file of several conformers.

    In a file, records of one name are one molecule, stereoisomers too: where they differ the centre
    is open. What cannot be used is told.

    Args:
        limit: molecules at most, evenly through the list.
        share: only those that a run on this store with this `data.val_share` holds out.

    Raises:
        InputError: nothing is there.
    """
    if any(Path(path).glob("part-*.arrow")):
        kept = list(read_store(path))
        return _some(kept if share is None else by_scaffold(kept, share).val, limit)
    groups: dict[str, list[Conformer]] = {}
    for entry in read_molecules(path, need_3d=True):
        if entry.mol is None:
            print(f"{entry.where}: {entry.error}")
            continue
        groups.setdefault(entry.name, []).append(Conformer(entry.where, entry.mol))
    found = []
    for name, conformers in groups.items():
        records, left_out = gather(conformers, name, apart=False)
        found += records
        for where, reason in left_out:
            print(f"{where}: {reason}")
    if not found:
        raise InputError(f"{path} holds no conformers: give an SDF with coordinates or a store")
    return _some(found, limit)


def _some(records: list[Record], limit: int | None) -> list[Record]:
    return records if limit is None else [records[k] for k in evenly(len(records), limit)]


def _relaxed(record: Record) -> tuple[np.ndarray, float]:
    start = time.process_time()
    return relaxed(record.graph, record.coords)[2], time.process_time() - start


class Sets:
    """2K conformers for the K references of each molecule, from anything that makes them."""

    def __init__(self, options: argparse.Namespace, progress: Progress) -> None:
        self.options, self.progress = options, progress
        self.device = choose_device(options.device)
        self.domain, self.denoiser, config, self.weights = molecule_run(options.run, self.device)
        self.own: Sampler = build(config["sampler"])
        self.references = read_references(options.references, options.limit, options.held_out)
        self.numbers = [SAMPLES * len(r.coords) for r in self.references]
        self.before = np.cumsum([0, *self.numbers]).tolist()  # conformers of earlier molecules
        state = hashlib.sha256()
        for record in self.references:
            state.update(record.graph.smiles.encode() + record.coords.tobytes())
        self.cache = HERE / "cache" / f"conformers-{state.hexdigest()[:12]}"
        self.task = progress.add_task("drawing", total=0)

    def kept(
        self, slug: str, make: Callable[[Sequence[int]], tuple[list[np.ndarray], float]]
    ) -> Drawn:
        """What `make` draws of these molecules, from the cache where it is there."""
        slug = "".join(c if c.isalnum() or c in "+-." else "_" for c in slug)
        count = len(self.references)
        self.progress.update(
            self.task, description=slug[:60], total=self.progress.tasks[self.task].total + count
        )
        records, total = [], 0.0
        for start in range(0, count, CHUNK):
            rows = range(start, min(start + CHUNK, count))
            path = self.cache / slug / f"{rows[0]}-{rows[-1]}.npz"
            if not path.exists():
                coords, seconds = make(rows)
                flat = {f"x{k}": x for k, x in zip(rows, coords, strict=True)}
                with atomic_path(path) as temporary, temporary.open("wb") as file:
                    np.savez_compressed(file, seconds=seconds, **flat)
            with np.load(path) as kept:
                total += float(kept["seconds"])
                records += [Record(self.references[k].graph, kept[f"x{k}"]) for k in rows]
            self.progress.advance(self.task, len(rows))
        return records, total

    def slug(self, name: str, sampler: Sampler, seed: int, tries: int) -> str:
        """Names what `drawn` draws."""
        grid = type(sampler.grid).__name__, vars(sampler.grid)
        recipe = str((type(sampler).__name__, {**vars(sampler), "grid": grid}, self.weights))
        return f"{name}-{tries}-seed{seed}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"

    def drawn(self, name: str, sampler: Sampler, seed: int, tries: int) -> Drawn:
        """The run's conformers: with one try as they come, else faulty ones drawn anew.

        What is wrong after the last try is missing.
        """

        def make(rows: Sequence[int]) -> tuple[list[np.ndarray], float]:
            def draw(graphs: Sequence[MolGraph], numbers: Sequence[int]) -> list[np.ndarray]:
                named = [self.before[rows[0]] + n for n in numbers]
                return self._draw(sampler, graphs, named, seed)

            known = [x for k in rows for x in before[k].coords]
            start = time.perf_counter()
            graphs = [self.references[k].graph for k in rows]
            counts = [self.numbers[k] for k in rows]
            first, returned = draw_ensembles(draw, graphs, counts, tries, known)
            seconds = time.perf_counter() - start
            return [r.coords for r in (first if tries == 1 else returned)], seconds

        before, seconds = [Record(r.graph, r.coords[:0]) for r in self.references], 0.0
        if tries > 1:
            before, seconds = self.drawn(name, sampler, seed, 1)
        records, more = self.kept(self.slug(name, sampler, seed, tries), make)
        return records, seconds + more

    def _draw(
        self, sampler: Sampler, graphs: Sequence[MolGraph], numbers: Sequence[int], seed: int = 0
    ) -> list[np.ndarray]:
        return draw_coordinates(
            self.denoiser, sampler, graphs, numbers, seed, self.device,
            self.options.most_atoms,
        )  # fmt: skip

    def calls(self, sampler: Sampler) -> int:
        """Network calls of a sample."""
        count = 0

        def one(*_: Any) -> None:
            nonlocal count
            count += 1

        hook = self.denoiser.network.register_forward_hook(one)
        self._draw(sampler, [min((r.graph for r in self.references), key=len)], [0])
        hook.remove()
        return count

    def peer(self, name: str, seed: int) -> Drawn:
        """A peer's conformers; seconds of one core."""

        def make(rows: Sequence[int]) -> tuple[list[np.ndarray], float]:
            graphs = [self.references[k].graph for k in rows]
            numbers = [self.numbers[k] for k in rows]
            seeds = seed * len(self.references) + rows[0]
            found, seconds = peer_records(name, graphs, numbers, seeds, self.options.workers)
            return [r.coords for r in found], seconds

        return self.kept(f"{name}-rdkit{rdBase.rdkitVersion}-seed{seed}", make)

    def relaxed(self, slug: str, records: Sequence[Record]) -> Drawn:
        """The same conformers relaxed with MMFF94; seconds of one core, of relaxing alone."""

        def make(rows: Sequence[int]) -> tuple[list[np.ndarray], float]:
            found = shared_out(_relaxed, [records[k] for k in rows], self.options.workers)
            return [x for x, _ in found], sum(seconds for _, seconds in found)

        return self.kept(f"{slug}-mmff", make)
