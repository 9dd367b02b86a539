"""Energy and strain of conformers, by MMFF94 or GFN2-xTB.

Strain is the energy above the lowest relaxed energy known of the molecule, over samples and
references alike; it is told before and after each conformer's own relaxation, in kcal/mol, with
the heavy-atom RMSD that the relaxation moved it by, in Angstrom. Neither energy is the one that
references were made with, so theirs is not 0: they stand beside.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float
from rdkit import Chem, rdBase
from rdkit.Chem import rdForceFieldHelpers
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from sciffusion.data.pool import Progress, shared_out
from sciffusion.domains.molecule.chem import MOST_CHARGE, add_conformers, to_mol
from sciffusion.domains.molecule.graph import ATOM_FEATURES, MolGraph, Record
from sciffusion.domains.molecule.rmsd import best_rmsd
from sciffusion.errors import InputError

STEPS = 2000
"""Steps of a relaxation, at most."""

HARTREE = 627.509474  # kcal/mol
BOHR = 0.529177210903  # Angstrom


class Field(Protocol):
    """Energies of one molecule."""

    def gradient(self, coords: Float[np.ndarray, "n 3"]) -> tuple[float, np.ndarray]:
        """(energy in kcal/mol, its gradient (N, 3) in kcal/mol/A); NaN where it fails."""
        ...

    def relax(self, coords: Float[np.ndarray, "n 3"]) -> tuple[float, float, np.ndarray]:
        """(energy in kcal/mol, energy once relaxed, relaxed coordinates); NaN where it fails."""
        ...


class MMFF94:
    """RDKit's MMFF94 in vacuum."""

    def __init__(self, graph: MolGraph) -> None:
        self.mol = to_mol(graph)
        with rdBase.BlockLogs():
            self.properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(self.mol, "MMFF94")

    @cached_property
    def _standing(self) -> tuple[Any, Chem.Mol]:
        """RDKit's force field, to be asked of any coordinates, and the molecule it points into."""
        mol = add_conformers(self.mol, np.zeros((self.mol.GetNumAtoms(), 3)))
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, self.properties)
        field.Initialize()
        return field, mol

    def gradient(self, coords: Float[np.ndarray, "n 3"]) -> tuple[float, np.ndarray]:
        """See `Field`; NaN for a molecule that MMFF94 has no parameters for."""
        if self.properties is None:
            return np.nan, np.full(coords.shape, np.nan)
        flat = coords.astype(np.float64).ravel().tolist()
        field = self._standing[0]
        return field.CalcEnergy(flat), np.array(field.CalcGrad(flat)).reshape(-1, 3)

    def relax(self, coords: Float[np.ndarray, "n 3"]) -> tuple[float, float, np.ndarray]:
        """See `Field`; NaN for a molecule that MMFF94 has no parameters for."""
        if self.properties is None:
            return np.nan, np.nan, coords
        mol = add_conformers(self.mol, coords)
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, self.properties)
        field.Initialize()
        before = field.CalcEnergy()
        field.Minimize(maxIts=STEPS)
        return before, field.CalcEnergy(), mol.GetConformer().GetPositions()


class XTB:
    """GFN2-xTB in vacuum by tblite, relaxed with L-BFGS."""

    def __init__(self, graph: MolGraph) -> None:
        column = {name: i for i, name in enumerate(ATOM_FEATURES)}
        self.numbers = graph.z.astype(np.int32)
        self.charge = float((graph.atoms[:, column["charge"]].astype(int) - MOST_CHARGE).sum())
        self.unpaired = int(graph.atoms[:, column["radicals"]].sum())

    def gradient(self, coords: Float[np.ndarray, "n 3"]) -> tuple[float, np.ndarray]:
        """See `Field`."""
        from tblite.interface import Calculator

        x = coords.astype(np.float64) / BOHR
        with threadpool_limits(1):
            try:
                calculator = Calculator("GFN2-xTB", self.numbers, x, self.charge, self.unpaired)
                calculator.set("verbosity", 0)
                result = calculator.singlepoint()
            except RuntimeError:  # tblite's own
                return np.nan, np.full(coords.shape, np.nan)
        energy = float(result.get("energy")) * HARTREE
        return energy, result.get("gradient") * (HARTREE / BOHR)

    def relax(self, coords: Float[np.ndarray, "n 3"]) -> tuple[float, float, np.ndarray]:
        """See `Field`; NaN where two atoms lie in one place or the electrons do not settle."""
        from tblite.interface import Calculator

        x = coords.astype(np.float64).ravel() / BOHR
        result = None

        def energy(flat: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal result
            calculator.update(flat.reshape(-1, 3))
            result = calculator.singlepoint(result)  # electrons start from the last ones
            return float(result.get("energy")), result.get("gradient").ravel()

        # One thread: so small a problem gains nothing by more, and loses all where cores are busy.
        with threadpool_limits(1):
            try:
                calculator = Calculator(
                    "GFN2-xTB", self.numbers, x.reshape(-1, 3), self.charge, self.unpaired
                )
                calculator.set("verbosity", 0)
                before = energy(x)[0]
                found = minimize(
                    energy, x, jac=True, method="L-BFGS-B",
                    options={"maxiter": STEPS, "gtol": 1e-3, "ftol": 1e-10},
                )  # fmt: skip
            except RuntimeError:  # tblite's own
                return np.nan, np.nan, coords
        return before * HARTREE, found.fun * HARTREE, found.x.reshape(-1, 3) * BOHR


FIELDS = {"mmff": MMFF94, "xtb": XTB}


def field(name: str) -> type[MMFF94] | type[XTB]:
    """The class of a name in `FIELDS`.

    Raises:
        InputError: there is none, or its package is not installed.
    """
    if name not in FIELDS:
        raise InputError(f"unknown force field {name!r}: choose {' or '.join(FIELDS)}")
    if name == "xtb" and importlib.util.find_spec("tblite") is None:
        raise InputError('GFN2-xTB needs tblite: pip install "sciffusion[xtb]"')
    return FIELDS[name]


def energies(field: Field, coords: Float[np.ndarray, "k n 3"]) -> Float[np.ndarray, " k"]:
    """Of conformers as they are, in kcal/mol; NaN where it fails."""
    return np.array([field.gradient(x)[0] for x in coords])


@dataclass(frozen=True)
class Strain:
    """Of some conformers: strain before and after relaxing (kcal/mol), and the way (Angstrom)."""

    before: Float[np.ndarray, " n"]
    after: Float[np.ndarray, " n"]
    moved: Float[np.ndarray, " n"]

    @classmethod
    def joined(cls, parts: Sequence[Strain]) -> Strain:
        """Of all molecules, without those conformers that have no energy."""
        table = np.concatenate([np.stack([p.before, p.after, p.moved]) for p in parts], axis=1)
        return cls(*table[:, np.isfinite(table).all(0)])


def relaxed(
    graph: MolGraph, coords: Float[np.ndarray, "k n 3"], name: str = "mmff"
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, "k n 3"]]:
    """(energies before, energies after, relaxed coordinates) of conformers of one molecule."""
    if not len(coords):
        return np.zeros(0), np.zeros(0), coords
    force = field(name)(graph)
    before, after, moved = zip(*(force.relax(x) for x in coords), strict=True)
    return np.array(before), np.array(after), np.stack(moved).astype(coords.dtype)


def _strain(pair: tuple[Record, Record], name: str) -> tuple[Strain, Strain]:
    parts = []
    for record in pair:
        before, after, x = relaxed(record.graph, record.coords, name)
        heavy = record.graph.heavy
        way = [
            best_rmsd(a[None, heavy], b[None, heavy])[0, 0]
            for a, b in zip(record.coords, x, strict=True)
        ]
        parts.append((before, after, np.array(way)))
    known = np.concatenate([after for _, after, _ in parts])
    lowest = np.nanmin(known) if np.isfinite(known).any() else np.nan
    a, b = (Strain(before - lowest, after - lowest, way) for before, after, way in parts)
    return a, b


def strains(
    pairs: Sequence[tuple[Record, Record]],
    name: str = "mmff",
    workers: int | None = 1,
    progress: Progress | None = None,
) -> tuple[Strain, Strain]:
    """Strain of (samples, references), a pair a molecule.

    Raises:
        InputError: a force field that is not there.
    """
    field(name)
    found = shared_out(partial(_strain, name=name), pairs, workers, progress)
    return Strain.joined([a for a, _ in found]), Strain.joined([b for _, b in found])
