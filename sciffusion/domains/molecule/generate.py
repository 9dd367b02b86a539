"""Conformers of many molecules at once: draw, read them back from space, draw the wrong ones again.

What the network draws is judged by its own coordinates (`stereo.fault`), never repaired. Conformer
k of a molecule has random numbers of its own, named by the molecule's atoms and bonds, k and the
attempt: it is the same whatever it is drawn beside and however many are asked for.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from rdkit import Chem

from sciffusion.domains.molecule.chem import ENERGY, add_conformers, from_mol, without_hydrogens
from sciffusion.domains.molecule.ensemble import keep
from sciffusion.domains.molecule.fragments import parts_of, side_by_side
from sciffusion.domains.molecule.graph import MolGraph
from sciffusion.domains.molecule.isomers import Isomers
from sciffusion.domains.molecule.relax import MMFF, Energies, relaxer
from sciffusion.domains.molecule.requests import MOST_CONFORMERS, Request, Say, Settings
from sciffusion.domains.molecule.stereo import fault, obeys, right
from sciffusion.errors import InputError

Draw = Callable[[Sequence[MolGraph], Sequence[int]], Sequence[Float[np.ndarray, "_ 3"]]]
"""Coordinates of each graph in Angstrom; the number names its random numbers."""


TOGETHER = {"cpu": 512, "cuda": 16384}
"""How many conformers it pays to draw together, by kind of device."""


@dataclass
class Tally:
    """Counts.

    Attributes:
        conformers: returned.
        first: drawn at the first attempt; first_right: of these, without a fault.
        stereo: first draws that had a stereo to obey; stereo_right: of these, that obeyed it.
    """

    conformers: int = 0
    first: int = 0
    first_right: int = 0
    stereo: int = 0
    stereo_right: int = 0

    def add(self, other: Tally) -> None:
        """Count those too."""
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Attributes:
        mol: the molecule with its conformers; each has the properties `conformer` (from 1),
            `SMILES` and, where there are energies, `chem.ENERGY` and `energy_method`.
        problem: "" where all that was asked for was drawn.
        tally: counts.
    """

    request: Request
    mol: Chem.Mol
    problem: str
    tally: Tally


class _Form:
    """A molecule with its stereo chosen: what is drawn, and what judges it."""

    def __init__(self, mol: Chem.Mol, graph: MolGraph) -> None:
        self.mol, self.graph, self.parts = mol, graph, parts_of(mol, graph)
        self.has_stereo = bool(graph.tetra_sign.any() or graph.ez_sign.any())

    @cached_property
    def smiles(self) -> str:
        return Chem.MolToSmiles(without_hydrogens(self.mol))


class _Molecule:
    """A request on its way, with the tries that succeeded."""

    def __init__(self, request: Request, settings: Settings) -> None:
        self.request, self.settings = request, settings
        self.forms = {id(request.mol): _Form(request.mol, request.graph)}
        self.isomers = Isomers(request.mol, settings.seed) if settings.stereo == "draw" else ()
        self.done: dict[int, _Try] = {}
        self.method, self.refused = "", ""
        self.faults: Counter[str] = Counter()
        self.tally = Tally()

    def number(self, k: int, attempt: int, part: int = 0) -> int:
        """The name of the random numbers of an attempt at a part of conformer k."""
        graph = self.request.graph
        name = zlib.crc32(graph.z.tobytes() + graph.bonds.astype("<i4").tobytes(), part)
        return (name + k + attempt * MOST_CONFORMERS) % 0xFFFFFFFF

    def form(self, k: int, attempt: int) -> _Form:
        """What conformer k is to be.

        An isomer that resisted half of the attempts may be none that exists: draw another then.
        """
        mol = self.request.mol
        if len(self.isomers) > 1:
            number = self.number(k, attempt if 2 * attempt >= self.settings.tries else 0)
            mol = self.isomers.pick(f"{self.settings.seed} {number}")
        if id(mol) not in self.forms:
            self.forms[id(mol)] = _Form(mol, from_mol(mol))
        return self.forms[id(mol)]

    @property
    def problem(self) -> str:
        """Why less came than was asked for."""
        got, n = len(self.done), self.settings.n
        if self.refused or got == n:
            return self.refused
        ((worst, count),) = self.faults.most_common(1)
        return (
            f"got {got} of {n} in {self.settings.tries} draws of each; the fault most often: "
            f"{worst} ({count} draws); more tries= or relax=mmff may help"
        )


class _Try:
    """An attempt at conformer k of a molecule."""

    def __init__(self, molecule: _Molecule, k: int, attempt: int) -> None:
        self.molecule, self.k, self.attempt = molecule, k, attempt
        self.form = molecule.form(k, attempt)
        self.energy = float("nan")

    def place(self, coords: Sequence[Float[np.ndarray, "_ 3"]]) -> None:
        """Take the coordinates of its parts."""
        self.coords = side_by_side(self.form.parts, coords)


def attempts(most: int) -> Iterator[range]:
    """0; 1; 2, 3; 4 to 7; ...: few rounds, since small batches are slow ones."""
    start, end = 0, 1
    while start < most:
        yield range(start, min(end, most))
        start, end = end, 2 * end


class Generator:
    """Answers requests.

    Args:
        draw: the network.
        settings: what is asked of every molecule.
        say: told what a person should know.
    """

    def __init__(self, draw: Draw, settings: Settings, say: Say) -> None:
        self.draw, self.settings, self.say = draw, settings, say
        self.relax = relaxer(settings.relax, say)
        self.energies = MMFF(say, steps=0)

    def __call__(self, requests: Sequence[Request]) -> list[Answer]:
        """The answers, in order; one that got no conformer has an empty molecule and a problem."""
        molecules = [_Molecule(r, self.settings) for r in requests]
        wanted = [(m, k) for m in molecules for k in range(self.settings.n)]
        for numbers in attempts(self.settings.tries):
            tries = [_Try(m, k, a) for m, k in wanted for a in numbers]
            self._coordinates(tries)
            if numbers.start == 0:
                _count_first(tries)
            right = _without_fault(tries, rough=self.relax is not None)
            earliest = {(id(t.molecule), t.k): t for t in reversed(right)}
            for t in self._relaxed(list(earliest.values())):
                t.molecule.done[t.k] = t
            wanted = [(m, k) for m, k in wanted if k not in m.done and not m.refused]
            if not wanted:
                break
        return [self._answer(m) for m in molecules]

    def _coordinates(self, tries: Sequence[_Try]) -> None:
        """Draw all parts of all tries together; an atom alone needs no network."""
        drawn = [
            (part.graph, t.molecule.number(t.k, t.attempt, p))
            for t in tries
            for p, part in enumerate(t.form.parts)
            if len(part.atoms) > 1
        ]
        found = iter(self.draw(*zip(*drawn, strict=True)) if drawn else ())
        lone = np.zeros((1, 3), np.float32)
        for t in tries:
            t.place([next(found) if len(part.atoms) > 1 else lone for part in t.form.parts])

    def _relaxed(self, tries: list[_Try]) -> list[_Try]:
        """Those that are still right when relaxed."""
        if self.relax is None:
            return tries
        for molecule, group in _grouped(tries, lambda t: t.molecule):
            mol = _with_conformers(group)
            try:
                energies = self.relax(mol)
            except InputError as error:
                molecule.refused = str(error)
                continue
            molecule.method = energies.method
            rows = zip(group, mol.GetConformers(), energies.values.tolist(), strict=True)
            for t, conformer, t.energy in rows:
                x = conformer.GetPositions()
                t.place([x[part.atoms] for part in t.form.parts])
        for t in tries:
            t.molecule.faults["it could not be relaxed"] += not np.isfinite(t.energy)
        return _without_fault([t for t in tries if np.isfinite(t.energy)])

    def _answer(self, molecule: _Molecule) -> Answer:
        request, tally = molecule.request, molecule.tally
        done = [molecule.done[k] for k in sorted(molecule.done)]
        if molecule.refused or not done:
            return Answer(request, Chem.Mol(request.mol), molecule.problem, tally)
        mol = _with_conformers(done)
        energies = self._known_energies(molecule, mol, done)
        threshold = self.settings.rmsd if self.settings.keep == "diverse" else None
        values = None if energies is None else energies.values
        chosen = set(keep(mol, values, threshold, self.settings.window).tolist())
        for i, (t, conformer) in enumerate(zip(done, list(mol.GetConformers()), strict=True)):
            if i not in chosen:
                mol.RemoveConformer(conformer.GetId())
                continue
            conformer.SetIntProp("conformer", t.k + 1)
            conformer.SetProp("SMILES", t.form.smiles)
            if energies is not None:
                conformer.SetDoubleProp(ENERGY, float(energies.values[i]))
                conformer.SetProp("energy_method", energies.method)
        tally.conformers = len(chosen)
        return Answer(request, mol, molecule.problem, tally)

    def _known_energies(
        self, molecule: _Molecule, mol: Chem.Mol, done: Sequence[_Try]
    ) -> Energies | None:
        """Those of relaxing, else single points where they are needed and can be had."""
        if self.relax is not None:
            return Energies(np.array([t.energy for t in done]), molecule.method)
        if self.settings.window is None and self.settings.keep == "all":
            return None
        try:
            return self.energies(mol)
        except InputError as error:
            if self.settings.window is not None:
                self.say(f"{molecule.request.where}: window={self.settings.window}: {error}")
            return None


def _grouped(tries: Sequence[_Try], key: Callable[[_Try], Any]) -> list[tuple[Any, list[_Try]]]:
    """Tries that share an object, by the first of each."""
    groups: dict[int, tuple[Any, list[_Try]]] = {}
    for t in tries:
        groups.setdefault(id(key(t)), (key(t), []))[1].append(t)
    return list(groups.values())


def _with_conformers(tries: Sequence[_Try]) -> Chem.Mol:
    """Their molecule."""
    return add_conformers(tries[0].molecule.request.mol, np.stack([t.coords for t in tries]))


def _count_first(tries: Sequence[_Try]) -> None:
    """Into the tallies."""
    for form, group in _grouped(tries, lambda t: t.form):
        tally, coords = group[0].molecule.tally, np.stack([t.coords for t in group])
        tally.first += len(group)
        tally.first_right += int(right(coords, form.graph).sum())
        if form.has_stereo:
            tally.stereo += len(group)
            tally.stereo_right += int(obeys(coords, form.graph).sum())


def _without_fault(tries: Sequence[_Try], rough: bool = False) -> list[_Try]:
    """Those that are what was asked for; the faults of the others are counted."""
    wrong = set()
    for form, group in _grouped(tries, lambda t: t.form):
        good = right(np.stack([t.coords for t in group]), form.graph, rough)
        for t in (t for t, fine in zip(group, good, strict=True) if not fine):
            reason = fault(t.coords, form.graph) or "it is not what was asked for"
            t.molecule.faults[reason.partition(" (")[0]] += 1
            wrong.add(id(t))
    return [t for t in tries if id(t) not in wrong]
