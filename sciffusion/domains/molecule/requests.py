"""What people ask for: one SMILES or a stream of records, each a request or a reason why not.

Records stay in order, names are made unique, and a record that cannot be served costs one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import islice
from numbers import Integral, Real
from typing import Any

import numpy as np
from rdkit import Chem, rdBase

from sciffusion.domains.molecule.chem import from_mol, parse_smiles
from sciffusion.domains.molecule.graph import MolGraph
from sciffusion.domains.molecule.isomers import MOST_ISOMERS, Isomers
from sciffusion.domains.molecule.readers import read_molecules
from sciffusion.domains.molecule.records import Entry
from sciffusion.errors import InputError

MOST_CONFORMERS = 1 << 20
CHOICES = {
    "stereo": ("draw", "enumerate", "as_given"),
    "relax": ("none", "mmff", "xtb"),
    "keep": ("all", "diverse"),
}
_HANDS = (
    Chem.ChiralType.CHI_UNSPECIFIED,
    Chem.ChiralType.CHI_TETRAHEDRAL_CW,
    Chem.ChiralType.CHI_TETRAHEDRAL_CCW,
)
_AXES = (Chem.BondStereo.STEREOATROPCW, Chem.BondStereo.STEREOATROPCCW)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What is asked of every molecule; configs/request/molecule.yaml says what each means.

    Raises:
        InputError: a setting out of its range.
    """

    n: int = 10
    stereo: str = "draw"
    relax: str = "none"
    keep: str = "all"
    rmsd: float = 0.5
    window: float | None = None
    tries: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if (value := getattr(self, name)) not in known:
                raise InputError(f"{name}={value} is not known: {', '.join(known)}")
        for name, most in (("n", MOST_CONFORMERS), ("tries", 1000)):
            if not (isinstance(value := getattr(self, name), Integral) and 1 <= value <= most):
                raise InputError(f"{name}={value} must be a whole number between 1 and {most}")
        if not isinstance(self.seed, Integral):
            raise InputError(f"seed={self.seed} must be a whole number")
        if not (isinstance(self.rmsd, Real) and self.rmsd > 0):
            raise InputError(f"rmsd={self.rmsd} must be more than 0 Angstrom")
        number = isinstance(self.window, Real) and not isinstance(self.window, bool)
        if self.window is not None and not (number and self.window >= 0):
            raise InputError(f"window={self.window} must be 0 kcal/mol or more, or null")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Settings:
        """Those of a configuration that holds others too."""
        return cls(**{f.name: config[f.name] for f in fields(cls)})


@dataclass(frozen=True)
class Request:
    """A molecule to serve.

    Attributes:
        where: the record it came from, for messages.
        name: unique among all requests.
        mol: hydrogens as atoms, no conformers; its atom order is that of the answer.
        graph: of `mol`.
    """

    where: str
    name: str
    mol: Chem.Mol
    graph: MolGraph


@dataclass(frozen=True)
class Failure:
    """A record that is not served, or only partly, and why."""

    where: str
    reason: str
    partly: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class Limits:
    """What a network was trained on.

    Args:
        facts: of the domain: `elements` (atomic numbers) and `largest` (atoms).
        say: told of the first molecule beyond the largest.
    """

    def __init__(self, facts: Mapping[str, Any], say: Say) -> None:
        self.elements, self.largest = set(facts["elements"]), facts["largest"]
        self.say, self.told = say, False

    def check(self, request: Request) -> None:
        """Warn once of molecules beyond the largest.

        Raises:
            InputError: elements that the network has not seen. A lone ion beside other parts is
                let through: it is placed, not drawn.
        """
        graph = request.graph
        sizes = np.bincount(graph.fragment)[graph.fragment].tolist()  # of each atom's part
        drawn = max(sizes) > 1
        unknown = sorted(
            {
                a.GetSymbol()
                for a, z, size in zip(request.mol.GetAtoms(), graph.z.tolist(), sizes, strict=True)
                if z not in self.elements and not (drawn and size == 1 and a.GetFormalCharge())
            }
        )
        if unknown:
            table = Chem.GetPeriodicTable()
            known = " ".join(table.GetElementSymbol(z) for z in sorted(self.elements))
            raise InputError(
                f"it holds {', '.join(unknown)}, which the network was not trained on: it knows "
                f"{known}"
            )
        if max(sizes) > self.largest and not self.told:
            self.told = True
            self.say(
                f"{request.where}: {request.name} has {max(sizes)} atoms, more than any molecule "
                f"that the network was trained on ({self.largest}): look at the result (said once)"
            )


def request_of(mol: Chem.Mol, name: str, where: str, limits: Limits) -> Request:
    """A request for an RDKit molecule; hydrogens are added where they are implicit.

    Raises:
        InputError: it cannot be a graph, the network does not know it, or it asks for a stereo that
            no answer could be held to.
    """
    mol = Chem.Mol(mol)
    mol.RemoveAllConformers()
    try:
        with rdBase.BlockLogs():
            Chem.SanitizeMol(mol)
            mol = Chem.AddHs(mol)
    except ValueError as error:  # what RDKit's exceptions are
        raise InputError(f"{' '.join(str(error).split())}: correct the bonds or charges") from error
    mol.SetProp("_Name", name)
    _check_marks(mol)
    request = Request(where, name, mol, from_mol(mol))
    limits.check(request)
    return request


def _check_marks(mol: Chem.Mol) -> None:
    """Refuse what a graph leaves out although it was asked for."""
    for k, atom in enumerate(mol.GetAtoms(), 1):
        if atom.HasQuery():
            raise InputError(f"atom {k} is a query, no element: replace it")
        if (tag := atom.GetChiralTag()) not in _HANDS:
            kind = tag.name.removeprefix("CHI_").lower()
            raise InputError(
                f"the stereo of atom {k} is {kind}: only tetrahedral centres and double bonds can "
                "be held to; remove the mark"
            )
    for bond in mol.GetBonds():
        ends = f"{bond.GetBeginAtomIdx() + 1}-{bond.GetEndAtomIdx() + 1}"
        if bond.GetStereo() in _AXES:
            raise InputError(
                f"bond {ends} is marked as an axis of chirality: only tetrahedral centres and "
                "double bonds can be held to; remove the mark"
            )
        if bond.GetBondType() == Chem.BondType.AROMATIC and not bond.GetIsAromatic():
            raise InputError(f"bond {ends} is aromatic but in no such ring: write its order")


def isomers_of(request: Request, seed: int, say: Say) -> list[Request]:
    """A request for each possible stereoisomer, NAME_iso1, NAME_iso2, ..."""
    isomers = Isomers(request.mol, seed)
    if len(isomers) == 1:
        return [request]
    if isomers.cut:
        say(f"{request.where}: {request.name} may be more isomers than {MOST_ISOMERS}: these only")
    found = []
    for k, mol in enumerate(isomers.possible(), 1):
        mol = Chem.Mol(mol)
        mol.SetProp("_Name", f"{request.name}_iso{k}")
        found.append(replace(request, name=f"{request.name}_iso{k}", mol=mol, graph=from_mol(mol)))
    return found


class Names:
    """Names made unique: the second of a name becomes NAME_2."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}

    def unique(self, name: str) -> str:
        """The name, or with the first number that is free."""
        name = "".join(c if c.isprintable() else " " for c in name).strip()
        found = name
        while found in self.count:
            self.count[name] += 1
            found = f"{name}_{self.count[name]}"
        self.count[found] = 1
        return found


def entries(smiles: str | None, path: str | None, name: str = "") -> Iterator[Entry]:
    """The records of one SMILES, or of a file.

    Raises:
        InputError: none or both are given, or the file cannot be read.
    """
    if (smiles is None) == (path is None):
        raise InputError("give smiles=SMILES or input=FILE, one of the two")
    if path is not None:
        yield from read_molecules(path, need_3d=False)
        return
    assert smiles is not None
    try:
        yield Entry("smiles", name, parse_smiles(smiles), None)
    except InputError as error:
        yield Entry("smiles", name, None, str(error))


def windows(
    records: Iterable[Entry], size: int, names: Names | None = None
) -> Iterator[list[Entry]]:
    """Records in groups of `size`, named and with unique names."""
    names = names or Names()
    number, records = 0, iter(records)
    while window := list(islice(records, size)):
        named = []
        for entry in window:
            number += 1
            if entry.mol is not None:
                entry = replace(entry, name=names.unique(entry.name or f"molecule_{number}"))
            named.append(entry)
        yield named
