"""The backbone atoms of a PDB or mmCIF file, as it has them: nothing is chosen or joined here.

PDB is read by its columns (wwPDB format 3.3), mmCIF by Biopython's `MMCIF2Dict`. Chains, numbers
and insertion codes are the authors', as in PDB files. What cannot be read is noted by its chain, so
that the other chains can be served.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import StringIO
from math import isfinite
from typing import Any, NamedTuple

from sciffusion.domains.protein.backbone import ATOMS
from sciffusion.errors import InputError

WATERS = {"HOH", "DOD", "WAT", "H2O", "TIP", "TIP3", "SOL"}
MARKS = ("ATOM", "HETATM")
NO_STRUCTURE = "it is no PDB or mmCIF: it has no atom that can be read"


class Atom(NamedTuple):
    """A backbone atom.

    Attributes:
        chain, number, insertion, residue: which residue it belongs to, and its kind (ALA).
        name: one of ATOMS.
        alternate: location, "" where there is one only.
        occupancy: of this location.
        xyz: in Angstrom.
        hetero: whether it stands as HETATM.
    """

    chain: str
    number: int
    insertion: str
    residue: str
    name: str
    alternate: str
    occupancy: float
    xyz: tuple[float, float, float]
    hetero: bool


@dataclass
class Contents:
    """What a file holds.

    Attributes:
        atoms: N, CA, C, O of the first model, in order.
        residues: by chain, the kinds of residue in it, each as often as there are atoms.
        models: how many there are.
        parents: of modified residues, where the file says it: MSE -> MET.
        faults: by chain, what is wrong in it.
        listed: chains that the file's sequences name.
        remarks: the REMARK lines.
    """

    atoms: list[Atom] = field(default_factory=list)
    residues: dict[str, dict[str, int]] = field(default_factory=dict)
    models: int = 1
    parents: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    listed: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def note(self, chain: str, residue: str) -> None:
        """Count an atom."""
        kinds = self.residues.setdefault(chain, {})
        kinds[residue] = kinds.get(residue, 0) + 1

    def fault(self, chain: str, reason: str) -> None:
        """The first fault of a chain is told."""
        self.residues.setdefault(chain, {})
        self.faults.setdefault(chain, reason)


def read_atoms(text: str) -> Contents:
    """The atoms of a file's text.

    Raises:
        InputError: it is empty, or neither PDB nor mmCIF.
    """
    head = next((line for line in StringIO(text) if line.strip() and line[0] != "#"), None)
    if head is None:
        raise InputError("it is empty")
    contents = _from_mmcif(text) if head.lower().startswith("data_") else _from_pdb(text)
    if not any(contents.residues.values()):
        raise InputError(next(iter(contents.faults.values()), NO_STRUCTURE))
    return contents


def _from_pdb(text: str) -> Contents:
    contents, models, chain, number, line = Contents(), 0, "", 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(MARKS):
            if models <= 1:
                chain = _pdb_atom(contents, line, number, chain)
        elif line.startswith("MODEL"):
            models += 1
        elif line.startswith("MODRES"):
            contents.parents[line[12:15].strip()] = line[24:27].strip()
        elif line.startswith("SEQRES"):
            listed = line[11:12].strip()
            if listed not in contents.listed:
                contents.listed.append(listed)
        elif line.startswith("REMARK"):
            contents.remarks.append(line.rstrip())
    if line and models <= 1 and any(mark.startswith(line) for mark in MARKS):
        contents.fault(chain, _cut(number))
    contents.models = max(models, 1)
    return contents


def _pdb_atom(contents: Contents, line: str, number: int, before: str) -> str:
    """Note the atom of a line; returns its chain."""
    if len(line) < 22:
        contents.fault(before, _cut(number))
        return before
    name, residue, chain = line[12:16].strip(), line[17:21].strip(), line[21].strip()
    hetero = line[0] == "H"
    if hetero and residue in WATERS:
        contents.note(chain, residue)
        return chain
    if len(line.rstrip()) < 54:
        contents.fault(chain, _cut(number))
        return chain
    contents.note(chain, residue)
    if name not in ATOMS:
        return chain
    try:
        where = int(line[22:26])
        xyz = (float(line[30:38]), float(line[38:46]), float(line[46:54]))
        occupied = line[54:60].strip()
        occupancy = float(occupied) if occupied else 1.0
    except ValueError:
        contents.fault(chain, f"line {number}: {line[22:60]!r} are not a number and coordinates")
        return chain
    if not all(map(isfinite, xyz)):
        contents.fault(chain, _no_place(f"line {number}", xyz))
        return chain
    alternate, insertion = line[16].strip(), line[26].strip()
    contents.atoms.append(
        Atom(chain, where, insertion, residue, name, alternate, occupancy, xyz, hetero)
    )
    return chain


def _cut(number: int) -> str:
    return f"line {number} is cut off before its coordinates end: copy the file again"


def _no_place(where: str, xyz: tuple[float, ...]) -> str:
    return f"{where}: the coordinates {', '.join(map(str, xyz))} are not numbers"


_COLUMNS = {
    "chain": ("auth_asym_id", "label_asym_id"),
    "number": ("auth_seq_id", "label_seq_id"),
    "residue": ("label_comp_id", "auth_comp_id"),
    "name": ("label_atom_id", "auth_atom_id"),
    "x": ("Cartn_x",),
    "y": ("Cartn_y",),
    "z": ("Cartn_z",),
}
"""What an atom needs, and the columns that may say it, the first one first."""
_OPTIONAL = {
    "insertion": "pdbx_PDB_ins_code",
    "alternate": "label_alt_id",
    "occupancy": "occupancy",
    "mark": "group_PDB",
    "model": "pdbx_PDB_model_num",
}


def _from_mmcif(text: str) -> Contents:
    from Bio.PDB.MMCIF2Dict import MMCIF2Dict

    reader: Any = MMCIF2Dict  # Biopython has no types
    try:
        found = reader(StringIO(text))
    except (ValueError, KeyError, IndexError, RuntimeError, TypeError) as error:
        raise InputError(f"it is no well-formed mmCIF ({error}): copy the file again") from error
    columns = {
        name: next((found[f"_atom_site.{k}"] for k in keys if f"_atom_site.{k}" in found), None)
        for name, keys in _COLUMNS.items()
    }
    if missing := [k for k, v in columns.items() if v is None]:
        raise InputError(
            f"{NO_STRUCTURE} (its _atom_site has no {', '.join(missing)})"
            if len(missing) < len(columns)
            else NO_STRUCTURE
        )
    known: dict[str, list[str]] = {k: v for k, v in columns.items() if v is not None}
    longest = max(map(len, known.values()))
    for name, key in _OPTIONAL.items():
        known[name] = found.get(f"_atom_site.{key}", ["?"] * longest)
    whole = min(map(len, known.values()))  # a cut file has uneven columns
    contents = Contents()
    modified = "_pdbx_struct_mod_residue."
    kinds, parents = (found.get(modified + k, []) for k in ("label_comp_id", "parent_comp_id"))
    contents.parents.update(zip(kinds, parents, strict=False))
    for names in found.get("_entity_poly.pdbx_strand_id", []):
        contents.listed += [name.strip() for name in names.split(",") if name.strip() not in "?."]
    models = list(dict.fromkeys(known["model"][:whole]))
    contents.models = max(len(models), 1)
    for row in range(whole):
        if known["model"][row] == models[0]:
            _mmcif_atom(contents, {k: v[row] for k, v in known.items()}, row + 1)
    if whole < longest and len(models) <= 1:
        chains = known["chain"]
        contents.fault(
            chains[min(whole, len(chains) - 1)] if chains else "",
            f"atom {whole + 1} is cut off in the middle: copy the file again",
        )
    return contents


def _mmcif_atom(contents: Contents, row: dict[str, str], number: int) -> None:
    chain, residue = row["chain"], row["residue"]
    contents.note(chain, residue)
    hetero = row["mark"] == "HETATM"
    if row["name"] not in ATOMS or residue in WATERS or (hetero and row["number"] in "?."):
        return
    try:
        where = int(row["number"])
        xyz = (float(row["x"]), float(row["y"]), float(row["z"]))
        occupancy = float(row["occupancy"]) if row["occupancy"] not in "?." else 1.0
    except ValueError:
        said = " ".join(row[k] for k in ("number", "x", "y", "z"))
        contents.fault(chain, f"atom {number}: {said!r} are not a number and coordinates")
        return
    if not all(map(isfinite, xyz)):
        contents.fault(chain, _no_place(f"atom {number}", xyz))
        return
    alternate, insertion = ("" if row[k] in "?." else row[k] for k in ("alternate", "insertion"))
    contents.atoms.append(
        Atom(chain, where, insertion, residue, row["name"], alternate, occupancy, xyz, hetero)
    )
