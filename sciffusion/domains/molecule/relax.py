"""Relaxing conformers where they stand: MMFF94s by RDKit, or GFN2-xTB.

Parts of a molecule do not feel one another, since how they lie is no conformation; energies are the
sums over the parts, in kcal/mol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float
from rdkit import Chem, rdBase
from rdkit.Chem import rdForceFieldHelpers

from sciffusion.data.pool import cores
from sciffusion.domains.molecule.energy import field
from sciffusion.domains.molecule.fragments import parts_of
from sciffusion.errors import InputError

STEPS = 2000
"""Steps of a relaxation, at most."""


@dataclass(frozen=True)
class Energies:
    """Of a molecule's conformers.

    Attributes:
        values: (K,) kcal/mol, NaN where it failed.
        method: what they are of.
    """

    values: Float[np.ndarray, " k"]
    method: str


class Relaxer(Protocol):
    """Moves the conformers of a molecule to a minimum."""

    def __call__(self, mol: Chem.Mol) -> Energies:
        """Relax all conformers of `mol` in place.

        Raises:
            InputError: the method does not know its atoms.
        """
        ...


class MMFF:
    """MMFF94s, conformers in parallel; UFF for a molecule that it cannot type.

    Args:
        say: told the first time that UFF stands in.
        steps: at most this many; 0 leaves the conformers as they are and gives their energies.
    """

    def __init__(self, say: Callable[[str], None], steps: int = STEPS) -> None:
        self.say, self.steps, self.told = say, steps, False

    def __call__(self, mol: Chem.Mol) -> Energies:
        """See `Relaxer`."""
        with rdBase.BlockLogs():
            if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
                found = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(
                    mol, cores(), self.steps, "MMFF94s"
                )
                method = "MMFF94s"
            elif rdForceFieldHelpers.UFFHasAllMoleculeParams(mol):
                self._stand_in(mol)
                found = rdForceFieldHelpers.UFFOptimizeMoleculeConfs(mol, cores(), self.steps)
                method = "UFF"
            else:
                raise InputError("neither MMFF94s nor UFF knows its atoms: take relax=none")
        if any(state < 0 for state, _ in found):
            raise InputError(f"{method} cannot be set up for it: take relax=none")
        return Energies(np.array([energy for _, energy in found]), method)

    def _stand_in(self, mol: Chem.Mol) -> None:
        if not self.told:
            name = mol.GetProp("_Name") if mol.HasProp("_Name") else Chem.MolToSmiles(mol)
            self.say(f"{name}: MMFF94s does not know its atoms, UFF stands in (also for others)")
            self.told = True


class XTB:
    """GFN2-xTB in vacuum, by tblite.

    Raises:
        InputError: tblite is not installed.
    """

    def __init__(self) -> None:
        self.field = field("xtb")

    def __call__(self, mol: Chem.Mol) -> Energies:
        """See `Relaxer`."""
        parts = [(part.atoms, self.field(part.graph)) for part in parts_of(mol)]
        values = []
        for conformer in mol.GetConformers():
            x, total = conformer.GetPositions(), 0.0
            for atoms, force in parts:
                _, energy, x[atoms] = force.relax(x[atoms])
                total += energy
            conformer.SetPositions(x)
            values.append(total)
        return Energies(np.array(values), "GFN2-xTB")


def relaxer(name: str, say: Callable[[str], None]) -> Relaxer | None:
    """The relaxer of a setting: none, mmff or xtb.

    Raises:
        InputError: an unknown name, or a package that is not installed.
    """
    if name not in ("none", "mmff", "xtb"):
        raise InputError(f"relax={name} is not known: none, mmff or xtb")
    return {"none": lambda: None, "mmff": lambda: MMFF(say), "xtb": XTB}[name]()
