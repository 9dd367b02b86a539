"""Molecules with their conformers as text: SDF, xyz, PDB; the suffix of a path chooses.

All keep names, atom order and hydrogens; SDF and PDB keep bonds, SDF and xyz also each conformer's
properties (number, SMILES, energy in kcal/mol and its method).
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rdkit import Chem

from sciffusion.atomic import atomic_path
from sciffusion.errors import InputError


def _name(mol: Chem.Mol) -> str:
    return mol.GetProp("_Name") if mol.HasProp("_Name") else ""


def _properties(conformer: Chem.Conformer) -> dict[str, str]:
    values = conformer.GetPropsAsDict()
    return {k: f"{v:.6f}" if isinstance(v, float) else str(v) for k, v in sorted(values.items())}


def _has_open_stereo(mol: Chem.Mol) -> bool:
    places = Chem.FindPotentialStereo(Chem.Mol(mol))
    return any(place.specified != Chem.StereoSpecified.Specified for place in places)


def sdf(mol: Chem.Mol) -> str:
    """One SD record a conformer: V2000, or V3000 beyond 999 atoms or bonds."""
    mol = Chem.Mol(mol)
    mol.SetProp("_Name", _name(mol).replace("$$$$", "$$$"))  # four end a record
    several = _has_open_stereo(mol)
    records = []
    for conformer in mol.GetConformers():
        if several:  # else a double bond would be marked as either, whatever its coordinates
            Chem.AssignStereochemistryFrom3D(mol, conformer.GetId())
        items = _properties(conformer).items()
        data = "".join(f">  <{key}>\n{value}\n\n" for key, value in items)
        records.append(f"{Chem.MolToMolBlock(mol, confId=conformer.GetId())}{data}$$$$\n")
    return "".join(records)


def _quoted(value: str) -> str:
    if re.fullmatch(r"-?[\d.]+", value):
        return value
    return '"' + value.replace("\\", r"\\").replace('"', r"\"") + '"'


def xyz(mol: Chem.Mol) -> str:
    """One frame a conformer, Angstrom; the comments are those of extended xyz, with the charge."""
    charge = Chem.GetFormalCharge(mol)
    known = {"name": _name(mol)} | ({"charge": str(charge)} if charge else {})
    symbols = [a.GetSymbol() for a in mol.GetAtoms()]
    frames = []
    for conformer in mol.GetConformers():
        items = (known | _properties(conformer)).items()
        comment = " ".join(
            ["Properties=species:S:1:pos:R:3", *(f"{k}={_quoted(v)}" for k, v in items)]
        )
        rows = zip(symbols, conformer.GetPositions().tolist(), strict=True)
        atoms = [f"{symbol:2s} {x:14.8f} {y:14.8f} {z:14.8f}" for symbol, (x, y, z) in rows]
        frames.append("\n".join([str(len(symbols)), comment, *atoms, ""]))
    return "".join(frames)


def pdb(mol: Chem.Mol) -> str:
    """One MODEL a conformer, bonds as CONECT; END closes a molecule."""
    return Chem.MolToPDBBlock(mol)


Text = Callable[[Chem.Mol], str]
FORMATS: dict[str, Text] = {".sdf": sdf, ".xyz": xyz, ".pdb": pdb}


@dataclass(frozen=True)
class Format:
    """How molecules are written.

    Attributes:
        text: of one molecule with its conformers; such texts may follow one another in a file.
        packed: gzip.
        folder: a file a molecule in a folder.
    """

    text: Text
    packed: bool = False
    folder: bool = False

    def data(self, mols: Iterable[Chem.Mol]) -> bytes:
        """The bytes of some molecules; those of several calls may follow one another in a file."""
        data = "".join(map(self.text, mols)).encode()
        return gzip.compress(data, mtime=0) if self.packed else data


def format_of(out: str) -> Format:
    """The format of an output path.

    Raises:
        InputError: a suffix that is not known; the line lists those that are.
    """
    if out.endswith("/"):
        return Format(sdf, folder=True)
    lower = out.lower()
    packed = lower.endswith(".gz")
    suffix = Path(lower.removesuffix(".gz")).suffix
    if suffix not in FORMATS:
        known = ", ".join(f"{s}, {s}.gz" for s in FORMATS)
        raise InputError(f"out={out}: name a file {known}, or a folder by a / at its end")
    return Format(FORMATS[suffix], packed)


def file_name(name: str) -> str:
    """A name that is safe for a file, unique where names are, without its suffix."""
    safe = re.sub(r"[^\w+-]", "_", name)[:60]
    return safe if safe == name else f"{safe}-{zlib.crc32(name.encode()):08x}"


def write(mols: Iterable[Chem.Mol], out: str) -> None:
    """Molecules with their conformers into a file, or a folder where `out` ends with "/".

    Raises:
        InputError: an unknown suffix, or a place that cannot be written.
    """
    form = format_of(str(out))
    if form.folder:
        for mol in mols:
            write_alone(form, mol, Path(out))
        return
    with atomic_path(out) as temporary:
        temporary.write_bytes(form.data(mols))


def write_alone(form: Format, mol: Chem.Mol, folder: Path) -> None:
    """A molecule as a file of its own."""
    with atomic_path(folder / f"{file_name(_name(mol))}.sdf") as temporary:
        temporary.write_bytes(form.data([mol]))
