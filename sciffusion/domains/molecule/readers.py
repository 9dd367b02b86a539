"""Molecules from files, one by one: SDF, xyz and SMILES, plain or compressed, or standard input.

Reading has two steps, so that processes can share the slow one: `split` cuts a file into pieces
without understanding them, `records.parse` makes a molecule of a piece. A bad record is an entry
with an error that names its place; the records after it go on. Memory holds one record.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import sys
import zlib
from codecs import BOM_UTF8
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO

from sciffusion.domains.molecule.chem import parse_smiles
from sciffusion.domains.molecule.records import Entry, Piece, parse
from sciffusion.errors import InputError

OPENERS = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
KINDS = {
    ".sdf": "sdf",
    ".sd": "sdf",
    ".mol": "sdf",
    ".xyz": "xyz",
    ".extxyz": "xyz",
    ".smi": "smiles",
    ".smiles": "smiles",
    ".csv": "smiles",
    ".tsv": "smiles",
    ".txt": "smiles",
}
SMILES_COLUMNS = ("smiles", "isomeric_smiles", "canonical_smiles", "smi", "structure")
NAME_COLUMNS = ("name", "title", "id", "molecule", "molecule_name", "compound", "identifier")
LONGEST = 1 << 26
"""Bytes of the longest record; what is longer is no molecule."""
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What reading a cut or garbled compressed file raises."""
CXSMILES = "what stands between | and | (CXSMILES) is not read: remove it, or give an SDF"
NO_TEXT = "it is no text in UTF-8 (UTF-16, or packed under another name?): save it as such"


def read_molecules(path: str | Path, need_3d: bool = False, charge: int = 0) -> Iterator[Entry]:
    """The molecules of a file or of a folder of .xyz files, in order; "-" is standard input.

    Args:
        path: .sdf, .mol, .xyz, .smi, .smiles, .csv, .tsv or .txt, also with .gz, .xz or .bz2.
        need_3d: records without three-dimensional coordinates of all atoms are errors.
        charge: of molecules in xyz files whose comment does not say `charge=...`.

    Raises:
        InputError: the file is not there, of no known kind, or empty.
    """
    for piece in split(path):
        yield parse(piece, need_3d, charge)


def split(path: str | Path) -> Iterator[Piece]:
    """The records of a file or folder, not yet understood.

    Raises:
        InputError: as for `read_molecules`.
    """
    path = Path(path)
    if not path.is_dir():
        if not (yield from _split_file(path)):
            raise InputError(f"{_shown(path)} holds no molecule: it is empty")
        return
    files = sorted(p for p in path.iterdir() if _kind(p) == "xyz")
    if not files:
        raise InputError(f"{path} holds no .xyz files: name a folder of them, or a file")
    for file in files:
        if not (yield from _split_file(file)):
            yield Piece(str(file), "xyz", error="it is empty: remove it")


def _shown(path: Path) -> str:
    return "stdin" if str(path) == "-" else str(path)


def _kind(path: Path) -> str | None:
    suffixes = path.suffixes[-2:]
    if suffixes and suffixes[-1].lower() in OPENERS:
        suffixes = suffixes[:-1]
    return KINDS.get(suffixes[-1].lower()) if suffixes else None


def _split_file(path: Path) -> Generator[Piece, None, bool]:
    """The pieces of a file; returns whether there were any."""
    name = _shown(path)
    kind = None if name == "stdin" else _kind(path)
    if kind is None and name != "stdin":
        raise InputError(f"{path} is of no known kind: name one of {', '.join(KINDS)}")
    found = False
    with _opened(path) as (file, raw):
        lines = Lines(file, raw)
        try:
            if any("\0" in line for line in lines.peek(1)):
                yield Piece(name, kind or "smiles", error=NO_TEXT)
                return True
            kind = kind or _sniff(lines)
            for piece in _CUTTERS[kind](lines, name):
                found = True
                yield piece
        except DAMAGE as error:
            found = True
            reason = str(error) or type(error).__name__
            where = f"{name}, after line {lines.number}"
            yield Piece(where, "sdf", error=f"the file cannot be read on ({reason}): copy it again")
    return found


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """(decompressed, as it lies on the disk)."""
    if str(path) == "-":
        yield sys.stdin.buffer, sys.stdin.buffer
        return
    try:
        raw = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    with raw:
        opener = OPENERS.get(path.suffix.lower())
        if opener is None:
            yield raw, raw
        else:
            with opener(raw) as file:
                yield file, raw


class Lines:
    """Text lines of a binary file, counted; the first few can be looked at beforehand.

    Attributes:
        number: of the line that was read last, from 1.
    """

    def __init__(self, file: IO[bytes], raw: IO[bytes]) -> None:
        self.raw, self.number = raw, 0
        chunks = iter(lambda: file.readline(LONGEST), b"")
        # Some programs still end lines with a carriage return alone.
        self._lines = (part for chunk in chunks for part in chunk.rstrip(b"\r\n").split(b"\r"))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        return _decoded(line if self.number > 1 else line.removeprefix(BOM_UTF8))

    def peek(self, count: int) -> list[str]:
        """The next lines, which stay to be read."""
        ahead = list(islice(self._lines, count))
        self._lines = chain(ahead, self._lines)
        return [_decoded(line.removeprefix(BOM_UTF8)) for line in ahead]

    def piece(self, where: str, kind: str, **parts: str | None) -> Piece:
        """A piece that ends here."""
        try:
            position = self.raw.tell()
        except OSError:  # a pipe
            position = 0
        return Piece(where, kind, position=position, **parts)  # type: ignore[arg-type]


def _decoded(line: bytes) -> str:
    """UTF-8, or else what Windows writes."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace")


def _sniff(lines: Lines) -> str:
    """What standard input holds, from its first lines."""
    head = lines.peek(4)
    if len(head) == 4 and head[3].rstrip().endswith(("V2000", "V3000")):
        return "sdf"
    return "xyz" if head and _count(head[0]) is not None else "smiles"


def _split_sdf(lines: Lines, name: str) -> Iterator[Piece]:
    held: list[str] = []
    record, start, size = 1, 1, 0
    for line in lines:
        if not line.startswith("$$$$"):
            size += len(line)
            if size < LONGEST:
                held.append(line)
            continue
        yield _sdf_piece(lines, name, held, record, start, size)
        record, start, held, size = record + 1, lines.number + 1, [], 0
    if any(line.strip() for line in held):
        # A file of one molecule need not have the end mark; data fields may be cut, and not show.
        cut = any(line.startswith(">") for line in held)
        yield _sdf_piece(lines, name, held, record, start, size, cut)


def _sdf_piece(
    lines: Lines, name: str, held: list[str], record: int, start: int, size: int, cut: bool = False
) -> Piece:
    error = None
    if size >= LONGEST:
        error = f"it is longer than {LONGEST >> 20} MB: this is no SDF record"
    elif cut:
        error = "it is cut off (no '$$$$' after its data): copy the file again"
    where = f"{name}, record {record} (line {start})"
    title = held[0].strip() if held else ""
    return lines.piece(where, "sdf", name=title, text="\n".join(held), error=error)


def _split_xyz(lines: Lines, name: str) -> Iterator[Piece]:
    stem = Path(name).name.split(".")[0]
    for frame, line in enumerate((line for line in lines if line.strip()), 1):
        where = f"{name}, frame {frame} (line {lines.number})"
        if (count := _count(line)) is None:
            yield lines.piece(
                where, "xyz", name=stem, error="a number of atoms is expected here: check the file"
            )
            return  # there is no way to tell where the next frame begins
        rest = list(islice(lines, count + 1))
        error = None
        if len(rest) < count + 1:
            error = f"it is cut off ({max(len(rest) - 1, 0)} of {count} atoms): copy it again"
        text = "\n".join([line.strip(), *rest])
        yield lines.piece(where, "xyz", name=stem, text=text, error=error)


def _count(line: str) -> int | None:
    """How many atoms the first line of an xyz frame tells of."""
    return int(line) if line.strip().isdecimal() and len(line) < 16 else None


def _split_smiles(lines: Lines, name: str) -> Iterator[Piece]:
    head = next((line for line in lines.peek(100) if _filled(line)), "")
    delimiter = _delimiter(head, ".csv" in Path(name).suffixes)
    at, name_at, header = _columns(_cells(head, delimiter))
    for line in lines:
        if not _filled(line):
            continue
        if header:
            header = False
            continue
        where = f"{name}, line {lines.number}"
        cells = _cells(line, delimiter)
        if at >= len(cells) or not cells[at].strip():
            yield lines.piece(where, "smiles", error="it has no SMILES")
            continue
        title = cells[name_at].strip() if name_at is not None and name_at < len(cells) else ""
        error = CXSMILES if title.startswith("|") and "|" in title[1:] else None
        yield lines.piece(where, "smiles", name=title, text=cells[at].strip(), error=error)


def _filled(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _delimiter(head: str, csv_file: bool) -> str | None:
    """What parts the columns: a tab, a comma, a semicolon or (None) the first white space."""
    for mark in (mark for mark in "\t,;" if mark in head):
        titled = any(cell.strip().lower() in SMILES_COLUMNS for cell in head.split(mark))
        if mark == "\t" or csv_file or titled or mark in head.split(" ")[0]:
            return mark
    return "," if csv_file else None


def _cells(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split(maxsplit=1)
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return line.split(delimiter)


def _columns(head: list[str]) -> tuple[int, int | None, bool]:
    """(column of the SMILES, of the name, whether the first line is a header)."""
    titles = [cell.strip().lower().replace(" ", "_") for cell in head]
    at = next((titles.index(t) for t in SMILES_COLUMNS if t in titles), None)
    if at is not None:
        return at, next((titles.index(t) for t in NAME_COLUMNS if t in titles), None), True
    at = next((k for k, cell in enumerate(head) if _parses(cell.strip())), 0)
    return at, 0 if at and at + 1 >= len(head) else at + 1, False


def _parses(smiles: str) -> bool:
    try:
        return bool(parse_smiles(smiles))
    except InputError:
        return False


_CUTTERS = {"sdf": _split_sdf, "xyz": _split_xyz, "smiles": _split_smiles}
