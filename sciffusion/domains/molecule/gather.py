"""Conformers of one name put together: one record for each stereoisomer among them.

The atoms of a molecule may come in another order from record to record, and those of a symmetric
ring with its hand turned round under the same numbers. Both are laid on the first conformer: atoms
that stand at the same place in the canonical SMILES, hydrogens written out, are the same atom.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from rdkit import Chem

from sciffusion.domains.molecule.chem import from_mol, same_atoms, settled, with_signs
from sciffusion.domains.molecule.graph import MolGraph, Record
from sciffusion.domains.molecule.marks import with_marks
from sciffusion.domains.molecule.stereo import bonds_kept, fault, isomer_signs, obeys
from sciffusion.errors import InputError


@dataclass(frozen=True)
class Conformer:
    """One of a molecule.

    Attributes:
        where: file and record.
        mol: with one conformer and all hydrogens.
        energy: in kcal/mol.
    """

    where: str
    mol: Chem.Mol
    energy: float = np.nan


@dataclass
class _Isomer:
    """What is gathered of one stereoisomer: its form, its canonical text and where atoms stand."""

    form: int
    graph: MolGraph
    text: str
    order: list[int]
    where: str
    coords: list[np.ndarray] = field(default_factory=list)
    energy: list[float] = field(default_factory=list)


def gather(
    conformers: Iterable[Conformer], name: str, apart: bool = True
) -> tuple[list[Record], list[tuple[str, str]]]:
    """(records, [(where, why it was left out)]).

    Args:
        conformers: of one molecule, or of several that share a name: each has its own records.
        name: of the records.
        apart: a record a stereoisomer; otherwise one for all, open (sign 0) where they differ.
    """
    gathering = _Gathering(name, apart)
    left_out = []
    for conformer in conformers:
        if reason := gathering.add(conformer):
            left_out.append((conformer.where, reason))
    return [gathering.record(isomer) for isomer in gathering.isomers], left_out


class _Gathering:
    def __init__(self, name: str, apart: bool) -> None:
        self.name, self.apart = name, apart
        self.isomers: list[_Isomer] = []
        self._forms: list[tuple[Chem.Mol, MolGraph]] = []  # one an order of atoms
        self._known: dict[tuple[int, bytes], tuple[_Isomer, np.ndarray]] = {}

    def add(self, conformer: Conformer) -> str | None:
        """Put a conformer where it belongs; why it cannot be used, else None."""
        try:
            form = self._form(conformer.mol)
        except InputError as error:
            return str(error)
        graph = self._forms[form][1]
        x = conformer.mol.GetConformer().GetPositions().astype(np.float32)
        if not bonds_kept(x, graph):
            return fault(x, graph)
        signs = isomer_signs(x, graph)
        key = (form, b"".join(s.tobytes() for s in signs) if self.apart else b"")
        if key not in self._known:
            self._known[key] = self._place(form, graph.with_stereo(*signs), x, conformer.where)
        isomer, order = self._known[key]
        isomer.coords.append(x[order])
        isomer.energy.append(conformer.energy)
        return None

    def _form(self, mol: Chem.Mol) -> int:
        """The number of the order that a molecule's atoms have."""
        for number, (known, _) in enumerate(self._forms):
            if same_atoms(known, mol):
                return number
        self._forms.append((mol, from_mol(mol, self.name)))
        return len(self._forms) - 1

    def _place(
        self, form: int, graph: MolGraph, x: Float[np.ndarray, "n 3"], where: str
    ) -> tuple[_Isomer, Int[np.ndarray, " n"]]:
        """(the isomer that a conformer is of, the order that brings its atoms into the isomer's)"""
        if self.apart:
            graph = settled(graph, self._forms[form][0])
        else:
            graph = graph.with_stereo(0 * graph.tetra_sign, 0 * graph.ez_sign)
        mol = with_marks(self._forms[form][0], graph)
        text, itself = Chem.MolToSmiles(mol), np.arange(len(graph))
        order = list(mol.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"])
        for isomer in self.isomers:
            if isomer.text == text:
                moved = itself.copy()
                moved[isomer.order] = order
                alike = isomer.form == form and obeys(x, isomer.graph)
                found = itself if alike else moved
                if bonds_kept(x[found], isomer.graph) and obeys(x[found], isomer.graph):
                    return isomer, found
        self.isomers.append(_Isomer(form, graph, text, order, where))
        return self.isomers[-1], itself

    def record(self, isomer: _Isomer) -> Record:
        """What was gathered of an isomer."""
        coords, graph = np.stack(isomer.coords), isomer.graph
        if not self.apart:
            signs = isomer_signs(coords, graph)
            graph = with_signs(graph, *(np.where((s == s[0]).all(0), s[0], 0) for s in signs))
        return Record(graph, coords, np.array(isomer.energy), isomer.where)
