"""Atoms put together to chains: one location an atom, one kind a residue, peptide bonds by length.

A residue takes the alternate location of the highest occupancy (of equals, the first by name) for
all its atoms; one that lacks N, CA or C there takes the next. Residues without N, CA and C, or with
these torn apart, are left out, and `Backbone.joined` shows a break there. A missing O is built in
the peptide plane; at the end of a chain, where nothing tells, with psi = 140 degrees.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache

import numpy as np

from sciffusion.domains.protein.atoms import WATERS, Atom, Contents
from sciffusion.domains.protein.backbone import (
    ATOMS,
    BREAK,
    CA,
    ONE_LETTER,
    UNKNOWN,
    Backbone,
    C,
    N,
    O,
)
from sciffusion.domains.protein.geometry import C_O, CA_C_O, dihedral, place

NUCLEIC = {"A", "C", "G", "U", "I", "DA", "DC", "DG", "DT", "DU", "DI", "T", "N", "DN"}
BONDED = (1.0, 2.0)
"""What N-CA and CA-C lie between, in Angstrom."""
PSI = np.radians(140.0)
"""Where a last O must be built."""


class Residue:
    """The atoms of one residue, by alternate location."""

    def __init__(self, first: Atom) -> None:
        self.number, self.insertion, self.hetero = first.number, first.insertion, first.hetero
        self.atoms: dict[str, dict[str, Atom]] = defaultdict(dict)

    def add(self, atom: Atom) -> bool:
        """False where the atom is there already: two residues bear one number."""
        place = self.atoms[atom.alternate]
        if atom.name in place or any(a.residue != atom.residue for a in place.values()):
            return False
        place[atom.name] = atom
        return True

    def chosen(self) -> dict[str, Atom]:
        """Its atoms, of one alternate location where there are several."""
        shared = self.atoms.get("", {})
        best = shared
        for label in sorted(filter(None, self.atoms), key=lambda k: (-self._occupancy(k), k)):
            atoms = shared | self.atoms[label]
            if {"N", "CA", "C"} <= atoms.keys():
                return atoms
            best = atoms if len(atoms) > len(best) else best
        return best

    def _occupancy(self, label: str) -> float:
        atoms = self.atoms[label].values()
        return sum(a.occupancy for a in atoms) / len(atoms)


def chains_of(contents: Contents) -> tuple[list[Backbone], list[tuple[str, str]]]:
    """(chains that can be used, (name, why) of the others), both in order; names are not given."""
    atoms: dict[str, list[Atom]] = {name: [] for name in (*contents.residues, *contents.listed)}
    for atom in contents.atoms:
        atoms[atom.chain].append(atom)
    chains, left_out = [], []
    for name, mine in atoms.items():
        if name in contents.faults:
            left_out.append((name, contents.faults[name]))
            continue
        residues, twice = _residues(mine)
        chain = _chain(name, residues, contents.parents)
        if chain is not None:
            chains.append(chain)
        if twice:
            left_out.append((name, f"it has {twice} atoms twice; the first of each is kept"))
        elif chain is None:
            left_out.append((name, _why(contents.residues.get(name, {}), mine)))
    return chains, left_out


def _residues(atoms: Iterable[Atom]) -> tuple[list[Residue], int]:
    """(residues in order, polymer atoms that are there twice)."""
    found: dict[tuple[int, str], Residue] = {}
    twice = 0
    for atom in atoms:
        key = (atom.number, atom.insertion)
        if key not in found:
            found[key] = Residue(atom)
        twice += not found[key].add(atom) and not atom.hetero
    return list(found.values()), twice


def _chain(name: str, residues: list[Residue], parents: dict[str, str]) -> Backbone | None:
    """The backbone of what has one, if anything."""
    rows, coords, letters = [], [], []
    for residue in residues:
        atoms = residue.chosen()
        if not {"N", "CA", "C"} <= atoms.keys():
            continue
        x = np.array([atoms[k].xyz if k in atoms else (np.nan,) * 3 for k in ATOMS])
        bonds = np.linalg.norm(x[[N, C]] - x[CA], axis=-1)
        if (bonds > BONDED[0]).all() and (bonds < BONDED[1]).all():
            rows.append(residue)
            coords.append(x)
            letters.append(_letter(atoms["CA"].residue, parents))
    if not rows:
        return None
    x = np.stack(coords)
    kept = _polymer(x, rows, letters)
    if not kept.any():
        return None
    chain = Backbone(
        _with_oxygens(x[kept]),
        "".join(letter for letter, keep in zip(letters, kept, strict=True) if keep).upper(),
        np.full(kept.sum(), name),
        np.array([r.number for r, keep in zip(rows, kept, strict=True) if keep]),
        np.array([r.insertion for r, keep in zip(rows, kept, strict=True) if keep]),
    )
    return chain


def _polymer(x: np.ndarray, rows: list[Residue], letters: list[str]) -> np.ndarray:
    """Which residues belong to the chain: not amino acids that are ligands.

    These stand as HETATM and are bonded to no residue of the chain; a modified residue between two
    gaps stays.
    """
    run = np.r_[0, np.cumsum(np.linalg.norm(x[1:, N] - x[:-1, C], axis=-1) >= BREAK)]
    sure = np.array([not r.hetero or k.islower() for r, k in zip(rows, letters, strict=True)])
    return np.isin(run, run[sure])


def _letter(residue: str, parents: dict[str, str]) -> str:
    """One letter; that of the parent in lower case for modified residues."""
    if residue in ONE_LETTER:
        return ONE_LETTER[residue]
    parent = ONE_LETTER.get(parents.get(residue, ""), "") or _modified().get(residue, "")
    return parent.lower() or UNKNOWN


@cache
def _modified() -> dict[str, str]:
    """The parents of modified residues in the chemical component dictionary, one letter each."""
    from Bio.Data.PDBData import protein_letters_3to1_extended

    letters = set(ONE_LETTER.values())
    return {k: v for k, v in protein_letters_3to1_extended.items() if v in letters}


def _with_oxygens(x: np.ndarray) -> np.ndarray:
    """Coordinates whose missing O are built."""
    lost = np.isnan(x[:, O]).any(-1)
    if not lost.any():
        return x
    n, ca, c = (x[:, k] for k in (N, CA, C))
    psi = np.full(len(x), PSI)
    joined = np.linalg.norm(n[1:] - c[:-1], axis=-1) < BREAK
    psi[:-1][joined] = dihedral(n[:-1], ca[:-1], c[:-1], n[1:])[joined]
    built = place(n, ca, c, C_O, CA_C_O, psi + np.pi)
    x[lost, O] = built[lost]
    return x


def _why(kinds: dict[str, int], atoms: list[Atom]) -> str:
    """Why a chain has no backbone."""
    if not kinds:
        return "it is empty: no atom of it is in the file"
    if kinds.keys() <= NUCLEIC | WATERS and kinds.keys() & NUCLEIC:
        return "it is a nucleic acid"
    names = {atom.name for atom in atoms if not atom.hetero}
    if names == {"CA"}:
        return "it has CA atoms only; a backbone needs N, CA and C"
    if names:
        return "no residue has its N, CA and C"
    few = sorted(kinds, key=lambda k: -kinds[k])
    return f"it is no protein: {', '.join(few[:3])}{', ...' if len(few) > 3 else ''}"
