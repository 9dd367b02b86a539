"""A molecule of several parts: each is drawn for itself, then they are put side by side.

How parts lie to one another is no conformation and is not sampled. They stand in a row along x,
each with its own orientation, their van der Waals surfaces `GAP` apart, in the order of their first
atoms; the atom order of the molecule is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from rdkit import Chem

from sciffusion.domains.molecule.chem import from_mol
from sciffusion.domains.molecule.graph import MolGraph

GAP = 1.0
"""Angstrom between the van der Waals surfaces of neighbours in the row."""


@dataclass(frozen=True)
class Part:
    """A connected part of a molecule.

    Attributes:
        atoms: (M,) its atoms' indices in the molecule, rising.
        mol: the part alone, its atoms in this order.
        graph: of `mol`.
    """

    atoms: Int[np.ndarray, " m"]
    mol: Chem.Mol
    graph: MolGraph


def parts_of(mol: Chem.Mol, graph: MolGraph | None = None) -> list[Part]:
    """The connected parts of a molecule, by their first atoms.

    Args:
        mol: hydrogens as atoms.
        graph: of `mol`, where it is known.

    Raises:
        InputError: a part that cannot be a graph; see `chem.from_mol`.
    """
    indices: list[list[int]] = []
    mols = Chem.GetMolFrags(mol, asMols=True, fragsMolAtomMapping=indices)
    if len(mols) == 1:
        return [Part(np.arange(mol.GetNumAtoms()), mol, graph or from_mol(mol))]
    pairs = zip(indices, mols, strict=True)
    return [Part(np.array(atoms), part, from_mol(part)) for atoms, part in pairs]


def van_der_waals(mol: Chem.Mol) -> Float[np.ndarray, " n"]:
    """Radii of a molecule's atoms in Angstrom."""
    table = Chem.GetPeriodicTable()
    return np.array([table.GetRvdw(a.GetAtomicNum()) for a in mol.GetAtoms()])


def side_by_side(
    parts: Sequence[Part], coords: Sequence[Float[np.ndarray, "_ 3"]]
) -> Float[np.ndarray, "n 3"]:
    """The molecule's coordinates in Angstrom from those of its parts, centred."""
    if len(parts) == 1:
        return coords[0]
    whole = np.empty((sum(len(p.atoms) for p in parts), 3), coords[0].dtype)
    edge = 0.0
    for part, x in zip(parts, coords, strict=True):
        radius = van_der_waals(part.mol)
        x = x - x.mean(0)
        x[:, 0] += edge - (x[:, 0] - radius).min()
        edge = (x[:, 0] + radius).max() + GAP
        whole[part.atoms] = x
    return whole - whole.mean(0)
