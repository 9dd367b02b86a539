"""Structures from files: PDB and mmCIF, plain or compressed, folders and archives of them.

Reading has two steps, so that processes can share the slow one: `split` finds the files without
understanding them, `records.parse` makes chains of one. Archives are read through, never unpacked
to the disk. What cannot be used has a line, chain by chain; the rest goes on.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from sciffusion.domains.protein.records import (
    DAMAGE,
    LARGEST,
    Piece,
    Structure,
    is_structure,
    parse,
)
from sciffusion.errors import InputError

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
NAMES = ".pdb, .ent, .cif or .mmcif (also .gz, .xz, .bz2)"


def read_structure(path: str | Path) -> Structure:
    """The structure in a file: its chains, with their names, numbers, insertion codes, sequence.

    Alternate locations, modified residues and missing atoms are treated as `assembly` says; of
    several models it is the first. Chains that cannot be used are in `left_out`.

    Raises:
        InputError: the file is not there, or no chain of it can be used.
    """
    path = Path(path)
    if path.is_dir() or is_archive(path):
        raise InputError(f"{path} holds several structures: name one file ({NAMES})")
    (piece,) = split(path)
    structure = parse(piece)
    if not structure.chains:
        more = f" (and {len(structure.left_out) - 1} more)" if structure.left_out[1:] else ""
        raise InputError(f"{structure.left_out[0]}{more}")
    return structure


def read_structures(path: str | Path) -> Iterator[Structure]:
    """The structures of a file, a folder with all below it, or an archive, in order.

    Raises:
        InputError: nothing is there. Bad files are structures without chains.
    """
    return map(parse, split(Path(path)))


def is_archive(path: Path) -> bool:
    """Whether a file is called as archives are."""
    return path.name.lower().endswith(ARCHIVES)


def inside(path: Path) -> list[Path]:
    """The files of structures in a folder and below it; a file is its own."""
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.rglob("*") if is_structure(p.name) and p.is_file())


def split(path: Path) -> Iterator[Piece]:
    """The files in a file, folder or archive, not yet understood.

    Raises:
        InputError: there is none.
    """
    if not path.is_dir() and is_archive(path):
        yield from _members(path)
        return
    files = inside(path)
    if not files:
        raise InputError(f"{path} holds no structures: files end in {NAMES}")
    yield from pieces(files)


def pieces(files: list[Path]) -> Iterator[Piece]:
    """Files as they lie on the disk.

    Raises:
        InputError: one cannot be read.
    """
    position = 0
    for file in files:
        try:
            size = file.stat().st_size
            data = file.read_bytes() if size <= LARGEST else b""
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}; check the path") from error
        position += size
        yield Piece(str(file), file.name, data, _too_long(size), position)


def _members(path: Path) -> Iterator[Piece]:
    """The files of an archive."""
    found = False
    try:
        raw = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the path") from error
    with raw:
        try:
            with tarfile.open(fileobj=raw, mode="r|*") as tar:
                for member in tar:
                    if not member.isfile() or not is_structure(member.name):
                        continue
                    found = True
                    content = tar.extractfile(member)  # only read: nothing lands on the disk
                    assert content is not None
                    data = content.read() if member.size <= LARGEST else b""
                    where, why = f"{path}, {member.name}", _too_long(member.size)
                    yield Piece(where, Path(member.name).name, data, why, raw.tell())
        except (tarfile.TarError, *DAMAGE) as error:
            found = True
            reason = f"the archive cannot be read on ({error}): copy it again"
            yield Piece(str(path), path.name, error=reason, position=raw.tell())
    if not found:
        raise InputError(f"{path} holds no structures: files end in {NAMES}")


def _too_long(size: int) -> str:
    return f"it is longer than {LARGEST >> 20} MB: give its chains as files" * (size > LARGEST)
