"""A record of a molecule file, before and after it is understood.

`Piece` is text that a file was cut into (`readers.split`), `Entry` the molecule that RDKit makes of
it or the reason why there is none. What is refused: what cannot be parsed, impossible valences,
no atoms, coordinates that are not numbers or lie 200 A away, flat drawings where space is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDetermineBonds

from sciffusion.domains.molecule.chem import ENERGY, add_conformers, parse_smiles, why_invalid
from sciffusion.errors import InputError

FARTHEST = 200.0
"""No atom lies farther than this from the origin, in Angstrom."""
MOST_TRIES = 1_000_000
"""Assignments of bond orders that are tried for an xyz record."""
_FIELD = re.compile(r"^>.*?<([^>]+)>.*\n((?:.*\S.*\n?)*)", re.M)


@dataclass(frozen=True)
class Piece:
    """A record before it is understood.

    Attributes:
        where: file and record or line.
        kind: "sdf", "xyz" or "smiles".
        name: of the molecule; "" where it has none.
        text: the record, without its end mark.
        error: why it cannot be used, where that is known already.
        smiles: for "xyz", the molecule that the coordinates must show, where the file says it.
        energy: in kcal/mol, where the file's kind says it.
        position: bytes of the file that were read so far, for progress.
    """

    where: str
    kind: str
    name: str = ""
    text: str = ""
    error: str | None = None
    smiles: str = ""
    energy: float | None = None
    position: int = 0


@dataclass(frozen=True)
class Entry:
    """A molecule with all its hydrogens as atoms, or the reason why there is none.

    Attributes:
        where: file and record or line.
        name: of the molecule; "" where it has none.
        mol: sanitized, stereo marked, with a conformer if the record had coordinates.
        error: what was wrong and what to do; None if nothing was.
    """

    where: str
    name: str
    mol: Chem.Mol | None = None
    error: str | None = None


def parse(piece: Piece, need_3d: bool = False, charge: int = 0) -> Entry:
    """The molecule of a piece.

    Args:
        piece: from `readers.split`.
        need_3d: whether coordinates of all atoms are needed.
        charge: of an xyz record whose comment does not say `charge=...`.
    """
    try:
        if piece.error:
            raise InputError(piece.error)
        with rdBase.BlockLogs():
            if piece.kind == "smiles":
                if need_3d:
                    raise InputError("a SMILES has no coordinates: give an SDF or xyz file")
                mol = parse_smiles(piece.text)
            elif piece.kind == "sdf":
                mol = _from_sdf(piece.text, need_3d)
            else:
                mol = _from_xyz(piece, charge)
    except InputError as error:
        return Entry(piece.where, piece.name, None, str(error))
    mol.SetProp("_Name", piece.name)
    if piece.energy is not None:
        mol.SetDoubleProp(ENERGY, piece.energy)
    return Entry(piece.where, piece.name, mol)


def _from_sdf(text: str, need_3d: bool) -> Chem.Mol:
    block, end, fields = text.partition("M  END")
    if not end:
        raise InputError("it is cut off (no 'M  END'): copy the file again")
    mol = Chem.MolFromMolBlock(block + end, removeHs=False)
    if mol is None:
        bare = Chem.MolFromMolBlock(block + end, removeHs=False, sanitize=False)
        raise InputError(why_invalid(bare) if bare else _garbled(block))
    if not mol.GetNumAtoms():
        raise InputError("it has no atoms: remove it")
    implied = sum(atom.GetTotalNumHs() for atom in mol.GetAtoms())
    _check_space(mol, need_3d, implied)
    for key, value in _FIELD.findall(fields):
        mol.SetProp(key, value.strip())
    return Chem.AddHs(mol, addCoords=True) if implied else mol


def _check_space(mol: Chem.Mol, need_3d: bool, implied: int) -> None:
    if not mol.GetNumConformers():
        raise InputError("it has no coordinates")
    x = mol.GetConformer().GetPositions()
    _check_coordinates(x)
    if need_3d and not mol.GetConformer().Is3D():
        raise InputError("its coordinates are a flat drawing: give three-dimensional ones")
    if need_3d and len(x) > 1 and (np.ptp(x, axis=0) < 1e-3).all():
        raise InputError("all its atoms lie in one place: give three-dimensional coordinates")
    if need_3d and implied:
        raise InputError(f"{implied} hydrogens are missing: give all atoms with coordinates")


def _check_coordinates(x: np.ndarray) -> None:
    if not np.isfinite(x).all():
        raise InputError(f"atom {np.argwhere(~np.isfinite(x))[0][0] + 1} has no finite coordinates")
    if (far := np.abs(x).max(1)).max() > FARTHEST:
        raise InputError(
            f"atom {far.argmax() + 1} lies {far.max():.0f} A from the origin, more than "
            f"{FARTHEST:.0f}: check units and record"
        )


def _garbled(block: str) -> str:
    """Why RDKit could not read a MOL block."""
    lines = block.split("\n")
    if re.search(r"\b(nan|inf)", "\n".join(lines[4:]), re.IGNORECASE):
        return "it has coordinates that are not numbers: repair or remove it"
    counts = re.match(r"([ \d]{3})([ \d]{3})", lines[3]) if len(lines) > 3 else None
    rows = [line for line in lines[4:] if line.strip() and not line.startswith("M  ")]
    if counts and len(rows) < sum(int(n) for n in counts.groups() if n.strip()):
        return "it has fewer atoms or bonds than it says: copy the file again"
    return "its MOL block is garbled: repair or remove it"


def _from_xyz(piece: Piece, charge: int) -> Chem.Mol:
    numbers, x, comment = _read_xyz(piece.text)
    _check_coordinates(x)
    said = re.search(r"\bcharge\s*=\s*\"?([+-]?\d+)\b", comment, re.IGNORECASE)
    mol = Chem.RWMol()
    for z in numbers:
        atom = Chem.Atom(z)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    mol = add_conformers(mol, x)
    if piece.smiles:
        return _bonds_of(piece.smiles, mol)
    charge = int(said[1]) if said else charge
    try:
        rdDetermineBonds.DetermineBonds(mol, charge=charge, maxIterations=MOST_TRIES)
        if len(numbers) == 1:  # RDKit tells of bonds alone
            mol.GetAtomWithIdx(0).SetFormalCharge(charge)
        Chem.SanitizeMol(mol)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"its bonds cannot be told from the coordinates with charge {charge} ({reason}): give "
            "its charge, or an SDF"
        ) from error
    return mol


def _read_xyz(text: str) -> tuple[list[int], np.ndarray, str]:
    """(atomic numbers, coordinates, comment) of one frame."""
    count, comment, *lines = text.split("\n")
    table = Chem.GetPeriodicTable()
    numbers, x = [], []
    for number, line in enumerate(lines[: int(count)], 1):
        try:
            symbol, *rest = line.split()
            z = int(symbol) if symbol.isdecimal() else table.GetAtomicNumber(symbol.capitalize())
            x.append([float(value.replace("*^", "e")) for value in rest[:3]])  # QM9 writes 1.*^-6
            numbers.append(z)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"atom {number} cannot be read ({line.strip()[:40]!r})") from error
        if len(x[-1]) < 3 or not 0 < z < 119:
            raise InputError(f"atom {number} cannot be read ({line.strip()[:40]!r})")
    if not numbers:
        raise InputError("it has no atoms: remove it")
    return numbers, np.array(x), comment


def _bonds_of(smiles: str, mol: Chem.Mol) -> Chem.Mol:
    """The molecule of a SMILES, its atoms in the order and at the places of `mol`."""
    known = parse_smiles(smiles)
    rdDetermineBonds.DetermineConnectivity(mol)
    order = mol.GetSubstructMatch(_skeleton(known))
    if len(order) != mol.GetNumAtoms() or known.GetNumBonds() != mol.GetNumBonds():
        raise InputError(f"the bonds that its coordinates show are not those of {smiles}")
    place = {atom: k for k, atom in enumerate(order)}
    found = Chem.RenumberAtoms(known, [place[k] for k in range(len(order))])
    found = add_conformers(found, mol.GetConformer().GetPositions())
    Chem.AssignStereochemistryFrom3D(found)
    return found


def _skeleton(mol: Chem.Mol) -> Chem.Mol:
    """Its elements and which of them are bonded: no charges, no bond orders."""
    bare = Chem.RWMol()
    for atom in mol.GetAtoms():
        bare.AddAtom(Chem.Atom(atom.GetAtomicNum()))
    for bond in mol.GetBonds():
        bare.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    return bare
