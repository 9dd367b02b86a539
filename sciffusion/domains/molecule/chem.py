"""The door between RDKit and `MolGraph`: molecules in, molecules out, nothing lost on the way.

Stereo is perceived once, on the molecule without its stereo marks, so that every isomer of a
molecule has the same tables (`MolGraph.tetra`, `.ez`) and only the signs differ. Isotopes and atom
maps are not part of a graph: isotopes stay in `smiles`, maps are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int, Int8, UInt8
from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds import MurckoScaffold

from sciffusion.domains.molecule.graph import ATOM_FEATURES, BOND_FEATURES, MolGraph, Record
from sciffusion.domains.molecule.marks import signs_of, stereo_tables, with_marks
from sciffusion.domains.molecule.stereo import isomer_signs
from sciffusion.errors import InputError

BOND_TYPES = {
    Chem.BondType.SINGLE: 1,
    Chem.BondType.DOUBLE: 2,
    Chem.BondType.TRIPLE: 3,
    Chem.BondType.AROMATIC: 4,
}
_KINDS = {number: kind for kind, number in BOND_TYPES.items()}
_HYBRIDISATIONS = {
    kind: number
    for number, kind in Chem.HybridizationType.values.items()
    if number < ATOM_FEATURES["hybridisation"]
}
_S = _HYBRIDISATIONS[Chem.HybridizationType.S]
_COLUMN = {name: i for i, name in enumerate(ATOM_FEATURES)}
_AS_WRITTEN = Chem.SmilesParserParams()
_AS_WRITTEN.removeHs = False
MOST_CHARGE = ATOM_FEATURES["charge"] // 2
MOST_RADICALS = ATOM_FEATURES["radicals"] - 1
ENERGY = "energy_kcal_per_mol"
"""The property of a molecule that holds its energy."""


def parse_smiles(smiles: str) -> Chem.Mol:
    """An RDKit molecule with its hydrogens as atoms, heavy atoms in the order of the SMILES.

    Raises:
        InputError: it cannot be parsed, it is no possible molecule, or it marks an allene's hand.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if len(smiles.split()) == 1 else None
        if mol is None:
            raise InputError(f"SMILES {_shown(smiles)}: {_diagnosis(smiles)}")
        if not mol.GetNumAtoms():
            raise InputError(f"SMILES {_shown(smiles)} has no atoms: give a molecule")
        if "@" in smiles and "=" in smiles and (atom := _marked_allene(smiles)):
            raise InputError(
                f"SMILES {_shown(smiles)}: atom {atom} marks the hand of an allene, which cannot "
                "be held to: remove the mark"
            )
        return Chem.AddHs(mol)


def _marked_allene(smiles: str) -> int:
    """The number of an allene's marked middle, 0 for none; RDKit drops the mark when it checks."""
    for atom in Chem.MolFromSmiles(smiles, sanitize=False).GetAtoms():
        double = [b.GetBondType() == Chem.BondType.DOUBLE for b in atom.GetBonds()]
        if double == [True, True] and atom.GetChiralTag() != Chem.ChiralType.CHI_UNSPECIFIED:
            return atom.GetIdx() + 1
    return 0


def _shown(smiles: str) -> str:
    return repr(smiles if len(smiles) <= 80 else f"{smiles[:77]}...")


def _diagnosis(smiles: str) -> str:
    """Why RDKit refused a SMILES."""
    if len(smiles.split()) != 1:
        return "it is empty or has spaces in it: give one SMILES"
    mol = Chem.MolFromSmiles(smiles, sanitize=False)
    if mol is None:
        return "it cannot be parsed: check brackets, ring numbers and element names"
    return why_invalid(mol)


def why_invalid(mol: Chem.Mol) -> str:
    """Why a molecule that was read without checks is not a possible one."""
    problems = Chem.DetectChemistryProblems(mol)
    reason = problems[0].Message() if problems else "it is no valid molecule"
    return f"{' '.join(reason.split())}: correct the bonds or charges"


def from_smiles(smiles: str, name: str = "") -> MolGraph:
    """The graph of a SMILES, hydrogens added; open stereo stays open (sign 0).

    Raises:
        InputError: it cannot be parsed, breaks a valence, is empty, or holds what no graph can
            (see `from_mol`).
    """
    return from_mol(parse_smiles(smiles), name)


def from_mol(mol: Chem.Mol, name: str = "", use_3d: bool = False) -> MolGraph:
    """The graph of a sanitized RDKit molecule whose hydrogens are atoms.

    Args:
        mol: the molecule.
        name: by default its `_Name`.
        use_3d: read stereo signs from the first conformer instead of from the stereo marks.

    Raises:
        InputError: no atoms, implicit hydrogens, dummy atoms, charges beyond 4, more than two
            unpaired electrons, or bonds other than single, double, triple and aromatic.
    """
    name = name or (mol.GetProp("_Name") if mol.HasProp("_Name") else "")
    atoms, links = list(mol.GetAtoms()), list(mol.GetBonds())  # RDKit's iterators are slow
    _check(atoms, links, name)
    if any(atom.GetAtomMapNum() for atom in atoms):
        mol = Chem.Mol(mol)
        for atom in mol.GetAtoms():
            atom.SetAtomMapNum(0)
    bonds, bond_features = _bonds(mol, links)
    graph = MolGraph(
        _atoms(mol, atoms, bonds),
        bonds,
        bond_features,
        *stereo_tables(mol, atoms, links),
        name=name,
    )
    if use_3d:
        if not mol.GetNumConformers():
            raise InputError(f"{_which(name)} has no coordinates to read stereo from")
        signs = isomer_signs(mol.GetConformer().GetPositions(), graph)
        graph = settled(graph.with_stereo(*signs), mol)
    bare = without_hydrogens(mol)
    return replace(graph, smiles=graph.smiles or Chem.MolToSmiles(bare), scaffold=scaffold(bare))


def _which(name: str) -> str:
    return f"molecule {name!r}" if name else "the molecule"


def _check(atoms: list[Chem.Atom], links: list[Chem.Bond], name: str) -> None:
    if not atoms:
        raise InputError(f"{_which(name)} has no atoms")
    for atom in atoms:
        reason = None
        if atom.GetAtomicNum() == 0:
            reason = "is a dummy atom, no element: replace it"
        elif atom.GetTotalNumHs():
            reason = "has hydrogens that are not atoms: add them all"
        elif abs(atom.GetFormalCharge()) > MOST_CHARGE:
            reason = f"has a charge beyond {MOST_CHARGE}: no such ion is known here"
        elif atom.GetNumRadicalElectrons() > MOST_RADICALS:
            reason = f"has more than {MOST_RADICALS} unpaired electrons: check its bonds"
        if reason:
            raise InputError(f"{_which(name)}: atom {atom.GetIdx() + 1} {reason}")
    for bond in links:
        if bond.GetBondType() not in BOND_TYPES:
            ends = f"{bond.GetBeginAtomIdx() + 1}-{bond.GetEndAtomIdx() + 1}"
            raise InputError(
                f"{_which(name)}: bond {ends} is {bond.GetBondType().name.lower()}: write it as "
                "single, double, triple or aromatic"
            )


def _atoms(
    mol: Chem.Mol, atoms: list[Chem.Atom], bonds: Int[np.ndarray, "e 2"]
) -> UInt8[np.ndarray, "n f"]:
    rings = mol.GetRingInfo()
    columns = {
        "z": [a.GetAtomicNum() for a in atoms],
        "charge": [a.GetFormalCharge() + MOST_CHARGE for a in atoms],
        "aromatic": [a.GetIsAromatic() for a in atoms],
        "hybridisation": [_HYBRIDISATIONS.get(a.GetHybridization(), 0) for a in atoms],
        "ring": [rings.MinAtomRingSize(i) for i in range(len(atoms))],
        "rings": [rings.NumAtomRings(i) for i in range(len(atoms))],
        "radicals": [a.GetNumRadicalElectrons() for a in atoms],
    }
    # RDKit says nothing of hydrogens it has just added, and "s" of those it has read.
    columns["hybridisation"] = [
        _S if z == 1 else h for z, h in zip(columns["z"], columns["hybridisation"], strict=True)
    ]
    z, both = np.array(columns["z"]), np.concatenate([bonds, bonds[:, ::-1]])
    columns["degree"] = np.bincount(both[:, 0], minlength=len(atoms))
    columns["hydrogens"] = np.bincount(both[z[both[:, 1]] == 1, 0], minlength=len(atoms))
    table = np.stack([columns[name] for name in ATOM_FEATURES], 1)
    return np.minimum(table, np.array(list(ATOM_FEATURES.values())) - 1).astype(np.uint8)


def _bonds(
    mol: Chem.Mol, links: list[Chem.Bond]
) -> tuple[Int[np.ndarray, "e 2"], UInt8[np.ndarray, "e 3"]]:
    rings = mol.GetRingInfo()
    rows = sorted(
        (
            *sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())),
            BOND_TYPES[bond.GetBondType()],
            bond.GetIsConjugated(),
            min(rings.MinBondRingSize(bond.GetIdx()), BOND_FEATURES["ring"] - 1),
        )
        for bond in links
    )
    table = np.array(rows, dtype=np.int64).reshape(-1, 5)
    return table[:, :2].copy(), table[:, 2:].astype(np.uint8)


def to_mol(graph: MolGraph, coords: Float[np.ndarray, "*k n 3"] | None = None) -> Chem.Mol:
    """A sanitized RDKit molecule, atoms in graph order, stereo marked by the graph's signs.

    Args:
        graph: the molecule.
        coords: one conformer (N, 3) or several (K, N, 3) to add, in Angstrom.
    """
    mol = Chem.RWMol()
    aromatic, radicals = _COLUMN["aromatic"], _COLUMN["radicals"]
    for z, charge, flat, electrons in graph.atoms[
        :, [_COLUMN["z"], _COLUMN["charge"], aromatic, radicals]
    ].tolist():
        mol.AddAtom(_atom(z, charge - MOST_CHARGE, flat, electrons))
    for (i, j), kind in zip(graph.bonds.tolist(), graph.bond_features[:, 0].tolist(), strict=True):
        mol.AddBond(i, j, _KINDS[kind])
    Chem.SanitizeMol(mol)
    marked = with_marks(mol, graph)
    if graph.name:
        marked.SetProp("_Name", graph.name)
    return marked if coords is None else add_conformers(marked, coords)


@lru_cache(maxsize=512)
def _atom(z: int, charge: int, aromatic: int, radicals: int) -> Chem.Atom:
    atom = Chem.Atom(z)
    atom.SetFormalCharge(charge)
    atom.SetIsAromatic(bool(aromatic))
    atom.SetNumRadicalElectrons(radicals)
    atom.SetNoImplicit(True)
    return atom


def add_conformers(mol: Chem.Mol, coords: Float[np.ndarray, "*k n 3"]) -> Chem.Mol:
    """A copy of the molecule with these conformers (Angstrom) in place of its own."""
    mol = Chem.Mol(mol)
    mol.RemoveAllConformers()
    for positions in np.asarray(coords, dtype=np.float64).reshape(-1, mol.GetNumAtoms(), 3):
        conformer = Chem.Conformer(mol.GetNumAtoms())
        conformer.SetPositions(np.ascontiguousarray(positions))
        mol.AddConformer(conformer, assignId=True)
    return mol


def record_of(mols: Sequence[Chem.Mol], name: str = "", source: str = "") -> Record:
    """Conformers of one molecule, same atoms in the same order; energies by their `ENERGY`.

    Stereo is read from the coordinates; where conformers differ it is open (sign 0).

    Raises:
        InputError: no conformers, another atom order or other bonds, or see `from_mol`.
    """
    if not mols:
        raise InputError(f"{_which(name)} has no conformers")
    graph = from_mol(mols[0], name)
    for number, mol in enumerate(mols[1:], 2):
        if not same_atoms(mols[0], mol):
            raise InputError(
                f"{_which(graph.name)}: conformer {number} has other atoms or bonds than the "
                "first, or another order of them"
            )
    coords = np.stack([mol.GetConformer().GetPositions() for mol in mols]).astype(np.float32)
    energy = np.array([energy_of(mol) for mol in mols])
    signs = isomer_signs(coords, graph)
    agreed = [np.where((s == s[0]).all(0), s[0], 0) for s in signs]
    graph = settled(graph.with_stereo(*agreed), mols[0])
    return Record(graph, coords, energy, source)


def energy_of(mol: Chem.Mol, key: str = ENERGY) -> float:
    """A molecule's energy in kcal/mol, NaN where it has none."""
    if not mol.HasProp(key):
        return np.nan
    try:
        energy = float(mol.GetDoubleProp(key))
    except (ValueError, RuntimeError):  # text that is no number
        return np.nan
    return energy if np.isfinite(energy) else np.nan


def same_atoms(one: Chem.Mol, other: Chem.Mol) -> bool:
    """Whether two molecules have the same elements, charges and bonds under the same numbers."""
    if one.GetNumAtoms() != other.GetNumAtoms():
        return False
    bonds = (Chem.GetAdjacencyMatrix(mol, useBO=True) for mol in (one, other))
    kinds = ([(a.GetAtomicNum(), a.GetFormalCharge()) for a in m.GetAtoms()] for m in (one, other))
    return np.array_equal(*bonds) and next(kinds) == next(kinds)


def with_signs(
    graph: MolGraph, tetra_sign: Int8[np.ndarray, " c"], ez_sign: Int8[np.ndarray, " d"]
) -> MolGraph:
    """The same molecule with other stereo signs and the SMILES that says them.

    Signs of places that are no stereo centre after all (two of its branches are alike) become 0, as
    they are in the graph of that SMILES.
    """
    graph = graph.with_stereo(tetra_sign, ez_sign)
    return settled(graph, to_mol(graph))


def settled(graph: MolGraph, mol: Chem.Mol) -> MolGraph:
    """The graph with those of its signs that the SMILES of the molecule can say, and that SMILES.

    Args:
        graph: with the signs that are wanted.
        mol: the same atoms in the same order; its marks do not matter.
    """
    mol = with_marks(mol, graph)
    for row, centre in enumerate(graph.tetra[:, 0].tolist()):
        mol.GetAtomWithIdx(centre).SetIntProp("_row", row)
    bare = without_hydrogens(mol)
    smiles = Chem.MolToSmiles(bare)
    tetra_sign, ez_sign = signs_of(mol, graph)
    said = np.zeros(len(tetra_sign), bool)
    if tetra_sign.any():
        with rdBase.BlockLogs():
            read = Chem.MolFromSmiles(smiles, _AS_WRITTEN)
        if read is None:  # seen of cages that RDKit writes but cannot kekulize again
            return replace(graph.with_stereo(tetra_sign, ez_sign), smiles=smiles)
        written = bare.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"]
        for atom, k in zip(read.GetAtoms(), written, strict=True):
            if bare.GetAtomWithIdx(k).HasProp("_row"):
                row = bare.GetAtomWithIdx(k).GetIntProp("_row")
                said[row] = atom.GetChiralTag() != Chem.ChiralType.CHI_UNSPECIFIED
    return replace(graph.with_stereo(np.where(said, tetra_sign, 0), ez_sign), smiles=smiles)


def without_hydrogens(mol: Chem.Mol) -> Chem.Mol:
    """A copy with hydrogens implied, but for those that carry stereo or are all there is."""
    with rdBase.BlockLogs():
        return Chem.RemoveHs(mol)


def scaffold(mol: Chem.Mol) -> str:
    """Bemis-Murcko scaffold without stereo, as SMILES; "" for chains."""
    flat = without_hydrogens(mol)
    Chem.RemoveStereochemistry(flat)
    return MurckoScaffold.MurckoScaffoldSmiles(mol=flat)
