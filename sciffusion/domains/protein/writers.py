"""Backbones as text: PDB and mmCIF; the suffix of a path chooses.

Both keep chain names, residue numbers, insertion codes and kinds, B-factors and secondary
structure; several models of the same residues, such as the frames of a trajectory, go into one
file. PDB has columns of fixed width (wwPDB format 3.3): what does not fit them is refused, never
cut; mmCIF (PDBx dictionary) has no such limits.
"""

from __future__ import annotations

import gzip
import os
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from sciffusion.atomic import atomic_path
from sciffusion.domains.protein.backbone import ATOMS, Backbone
from sciffusion.domains.protein.cif import cif_text
from sciffusion.domains.protein.layout import (
    DESIGN,
    Segment,
    chain_rows,
    checked,
    names_of,
    segments,
)
from sciffusion.domains.protein.secondary import HELIX, STRAND
from sciffusion.errors import InputError

LEAST, MOST = -999.999, 9999.999  # what eight columns with three decimals hold


def pdb_text(
    backbones: Backbone | Sequence[Backbone],
    b_factor: Float[np.ndarray, "*m l"] | None = None,
    secondary: Int[np.ndarray, " l"] | None = None,
    remarks: Sequence[str] = (),
    unknown: str = DESIGN,
) -> str:
    """A PDB file with TITLE, REMARK 6, HELIX, SHEET, ATOM and TER; MODEL and ENDMDL for several.

    Each strand is a sheet of its own: codes do not say which strands pair.

    Args:
        backbones: one, or several models of the same residues.
        b_factor: of each residue, of all models alike or of each; zero by default.
        secondary: of each residue, 0 loop, 1 helix, 2 strand; read off the last model by default.
        remarks: lines of free text.
        unknown: the name of residues of no known kind.

    Raises:
        InputError: the models or arrays do not fit each other, a coordinate is not finite, or
            something does not fit the columns of a PDB file.
    """
    models, b = checked(backbones, b_factor)
    found = segments(models[-1], secondary)
    one, names = models[0], names_of(models[0], unknown)
    _refuse_what_does_not_fit(models, b, found, names)
    rows = zip(one.chain, one.number, one.insertion, strict=True)
    # chain, number and insertion code, as every record has them
    places = [f"{chain or ' '}{number:4d}{code or ' '}" for chain, number, code in rows]

    def end(row: int, gap: str) -> str:
        return f"{names[row]:>3} {places[row][0]}{gap}{places[row][1:]}"

    lines = [f"TITLE     {_ascii(one.name)[:70]}"] if one.name else []
    for remark in remarks:
        parts = textwrap.wrap(_ascii(remark), 68) or [""]
        lines += [f"REMARK   6 {part}".rstrip() for part in parts]
    for k, s in enumerate((s for s in found if s.code == HELIX), 1):
        span = f"{end(s.first, ' ')} {end(s.last, ' ')}"
        lines.append(f"HELIX  {k:3d} {k:3d} {span} 1{'':30} {s.last - s.first + 1:5d}")
    for k, s in enumerate((s for s in found if s.code == STRAND), 1):
        lines.append(f"SHEET  {1:3d} {k:3d} 1 {end(s.first, '')} {end(s.last, '')} 0")
    closing = {rows.stop - 1 for rows in chain_rows(one)}
    for m, (model, values) in enumerate(zip(models, b.tolist(), strict=True), 1):
        if len(models) > 1:
            lines.append(f"MODEL     {m:4d}")
        serial = 0
        for i, (atoms, value) in enumerate(zip(model.coords.tolist(), values, strict=True)):
            place = f"{names[i]:>3} {places[i]}"
            for atom, (x, y, z) in zip(ATOMS, atoms, strict=True):
                serial += 1
                lines.append(
                    f"ATOM  {serial:5d}  {atom:<3} {place}   {x:8.3f}{y:8.3f}{z:8.3f}"
                    f"  1.00{value:6.2f}          {atom[0]:>2}  "
                )
            if i in closing:
                serial += 1
                lines.append(f"TER   {serial:5d}      {place}")
        if len(models) > 1:
            lines.append("ENDMDL")
    return "\n".join([*lines, "END", ""])


def write_backbone(
    path: str | os.PathLike[str],
    backbones: Backbone | Sequence[Backbone],
    b_factor: Float[np.ndarray, "*m l"] | None = None,
    secondary: Int[np.ndarray, " l"] | None = None,
    remarks: Sequence[str] = (),
    unknown: str = DESIGN,
) -> Path:
    """Write a file .pdb, .cif, .pdb.gz or .cif.gz, whole or not at all.

    Args:
        backbones, b_factor, secondary, remarks, unknown: as for `pdb_text`.

    Raises:
        InputError: as for `pdb_text`; another suffix; a place that cannot be written.
    """
    text, packed = format_of(path)
    data = text(backbones, b_factor, secondary, remarks, unknown).encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(data, mtime=0) if packed else data)
    return Path(path)


FORMATS: dict[str, Callable[..., str]] = {".pdb": pdb_text, ".cif": cif_text}


def format_of(path: str | os.PathLike[str]) -> tuple[Callable[..., str], bool]:
    """How a file of this name is written, and whether gzip packs it.

    Raises:
        InputError: a suffix that is not known; the line lists those that are.
    """
    lower = str(path).lower()
    suffix = Path(lower.removesuffix(".gz")).suffix
    if suffix not in FORMATS:
        known = ", ".join(f"{s}, {s}.gz" for s in FORMATS)
        raise InputError(f"{path}: backbones are written as {known}; name such a file")
    return FORMATS[suffix], lower.endswith(".gz")


def _refuse_what_does_not_fit(
    models: list[Backbone], b: np.ndarray, found: list[Segment], names: list[str]
) -> None:
    one = models[0]
    low, high = (round(float(f([f(m.coords) for m in models])), 3) for f in (np.min, np.max))
    first, last = one.number.min(), one.number.max()
    kinds = [s.code for s in found]
    most = max(kinds.count(HELIX), kinds.count(STRAND))
    atoms = len(one) * len(ATOMS) + len(one.chains)
    letters = {*one.chains, *one.insertion.tolist()}
    wide = sorted(x for x in letters if len(x) > 1 or not x.isascii())
    wide += sorted(x for x in set(names) if len(x) > 3)
    fits = {
        f"{len(models)} models; the most is 9999": len(models) <= 9999,
        f"{atoms} atoms and ends of chains; the most is 99999": atoms <= 99999,
        f"residues {first} to {last}; -999 to 9999 fit": first >= -999 and last <= 9999,
        f"coordinates {low:.3f} to {high:.3f} Angstrom; {LEAST} to {MOST} fit": (
            low >= LEAST and high <= MOST
        ),
        f"B-factors {b.min():.2f} to {b.max():.2f}; -99.99 to 999.99 fit": (
            b.min() > -99.995 and b.max() < 999.995
        ),
        f"{most} helices or strands; the most is 999": most <= 999,
        f"the name {wide[:1]}; chains and insertion codes have one ASCII letter, residues three": (
            not wide
        ),
    }
    for what, fit in fits.items():
        if not fit:
            raise InputError(f"{one.name or 'a backbone'} as PDB: {what}; write .cif instead")


def _ascii(text: str) -> str:
    """One line of the characters that a PDB file may hold."""
    return re.sub(r"[^ -~]", "?", " ".join(text.split()))
