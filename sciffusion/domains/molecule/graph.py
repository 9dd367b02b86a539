"""What a molecule is to the network: plain arrays of categories, bonds and signed stereo tables.

No RDKit: `chem.py` makes graphs where it is installed, and training reads them from a store. Stereo
is geometry, not CIP labels: a centre is four points whose signed volume is known, a double bond a
torsion whose side is known. The same tables are the network's input, what a sample must obey, and
what obedience is measured with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int, Int8, UInt8

ATOM_FEATURES = {
    "z": 119,             # atomic number
    "charge": 9,          # formal charge + 4, clipped to -4..4
    "degree": 8,          # neighbours, hydrogens included
    "hydrogens": 6,       # of those, hydrogens
    "aromatic": 2,
    "hybridisation": 8,   # 0 other, 1 s, 2 sp, 3 sp2, 4 sp3, 5 sp2d, 6 sp3d, 7 sp3d2
    "ring": 10,           # smallest ring: 0 none, 3..8, 9 larger
    "rings": 4,           # how many rings, at most 3
    "radicals": 3,        # unpaired electrons, at most 2
}  # fmt: skip
"""Columns of `MolGraph.atoms` and how many values each has."""

BOND_FEATURES = {
    "type": 6,            # 1 single, 2 double, 3 triple, 4 aromatic, 5 other; 0 is "no bond"
    "conjugated": 2,
    "ring": 10,           # smallest ring, as for atoms
}  # fmt: skip
"""Columns of `MolGraph.bond_features`."""


@dataclass(frozen=True)
class MolGraph:
    """A molecule with explicit hydrogens.

    Attributes:
        name, smiles: for people; `smiles` is isomeric and canonical, without explicit hydrogens.
        atoms: (N, F) categories, columns as in `ATOM_FEATURES`.
        bonds: (E, 2) each bond once, the lower atom first.
        bond_features: (E, 3) columns as in `BOND_FEATURES`.
        tetra: (C, 5) a centre and four points a, b, c, d: its neighbours by rising index, or three
            neighbours and the centre itself again.
        tetra_sign: (C,) sign of the volume (a - d) . ((b - d) x (c - d)); 0 where it is open.
        ez: (D, 4) a, i, j, b: a double bond i = j with its lowest-index neighbour on either side.
        ez_sign: (D,) 1 where a and b lie on the same side (cis), -1 trans, 0 where it is open.
        scaffold: Murcko scaffold, by which splits are made; "" for chains.
    """

    atoms: UInt8[np.ndarray, "n f"]
    bonds: Int[np.ndarray, "e 2"]
    bond_features: UInt8[np.ndarray, "e 3"]
    tetra: Int[np.ndarray, "c 5"]
    tetra_sign: Int8[np.ndarray, " c"]
    ez: Int[np.ndarray, "d 4"]
    ez_sign: Int8[np.ndarray, " d"]
    name: str = ""
    smiles: str = ""
    scaffold: str = ""

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def z(self) -> UInt8[np.ndarray, " n"]:
        """Atomic numbers."""
        return self.atoms[:, 0]

    @property
    def heavy(self) -> np.ndarray:
        """(N,) True for atoms that are not hydrogen."""
        return self.z > 1

    @cached_property
    def fragment(self) -> Int[np.ndarray, " n"]:
        """(N,) number of the connected part that an atom belongs to."""
        label = np.arange(len(self))
        while True:
            lower = label.copy()
            np.minimum.at(lower, self.bonds[:, 0], label[self.bonds[:, 1]])
            np.minimum.at(lower, self.bonds[:, 1], label[self.bonds[:, 0]])
            if (lower == label).all():
                return np.unique(label, return_inverse=True)[1]
            label = lower

    def to_plain(self) -> dict[str, str]:
        """Plain text for JSON; `from_plain` undoes it."""
        return {
            name: value if isinstance(value, str) else " ".join(map(str, value.ravel().tolist()))
            for name in self.__dataclass_fields__
            for value in [getattr(self, name)]
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, str]) -> MolGraph:
        """The graph that `to_plain` wrote."""
        like = cls.empty()
        return cls(**{
            name: text if isinstance(of := getattr(like, name), str)
            else np.array(text.split(), of.dtype).reshape(-1, *of.shape[1:])
            for name, text in plain.items()
        })  # fmt: skip

    @classmethod
    def empty(cls) -> MolGraph:
        """No atoms at all; its arrays have the shapes and types of every graph's."""
        return cls(
            np.zeros((0, len(ATOM_FEATURES)), np.uint8),
            np.zeros((0, 2), np.int16),
            np.zeros((0, len(BOND_FEATURES)), np.uint8),
            np.zeros((0, 5), np.int16),
            np.zeros(0, np.int8),
            np.zeros((0, 4), np.int16),
            np.zeros(0, np.int8),
        )

    def with_stereo(self, tetra_sign: np.ndarray, ez_sign: np.ndarray) -> MolGraph:
        """The same molecule with other signs."""
        return replace(self, tetra_sign=tetra_sign.astype(np.int8), ez_sign=ez_sign.astype(np.int8))


@dataclass(frozen=True)
class Record:
    """A molecule and conformers of it.

    Attributes:
        graph: the molecule.
        coords: (K, N, 3) in Angstrom.
        energy: (K,) in kcal/mol, NaN where unknown.
        source: where it came from: file and record.
    """

    graph: MolGraph
    coords: Float[np.ndarray, "k n 3"]
    energy: Float[np.ndarray, " k"] = field(default_factory=lambda: np.zeros(0))
    source: str = ""
