"""A file of a structure, before and after it is understood.

`Piece` is a file as it lies in a folder or an archive (`readers.split`); `Structure` what `parse`
makes of it: chains that can be used and a line for each that cannot. No pickle is read, and what a
file unpacks to is bounded.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import PurePath
from typing import Any

import numpy as np

from sciffusion.domains.protein.assembly import chains_of
from sciffusion.domains.protein.atoms import read_atoms
from sciffusion.domains.protein.backbone import Backbone
from sciffusion.errors import InputError

LARGEST = 1 << 28
"""Bytes that a file may have, unpacked."""
PACKED: dict[bytes, Callable[[BytesIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"BZh": bz2.open,
}
"""How files that begin so are unpacked."""
DAMAGE = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What reading a cut or garbled compressed file raises."""
NO_TEXT = "it is no text (UTF-16, or something else under this name?): save it as UTF-8"
_SUFFIX = re.compile(r"\.(pdb\d*|ent|cif|mmcif)(\.(gz|xz|bz2))?$", re.I)


@dataclass(frozen=True)
class Piece:
    """A file before it is understood.

    Attributes:
        where: its path, or that of the archive and its name there.
        name: of the file.
        data: as it lies there.
        error: why it cannot be used, where that is known already.
        position: bytes of the source that were read so far, for progress.
    """

    where: str
    name: str
    data: bytes = b""
    error: str = ""
    position: int = 0


@dataclass(frozen=True)
class Structure:
    """What a file holds.

    Attributes:
        name: of the file, without its suffixes.
        chains: that can be used, one Backbone each, in order.
        refused: by chain, a line on what cannot be used of it; under None one on the file.
        models: how many it holds; the chains are those of the first.
        remarks: its REMARK lines.
    """

    name: str
    chains: list[Backbone] = field(default_factory=list)
    refused: dict[str | None, str] = field(default_factory=dict)
    models: int = 1
    remarks: list[str] = field(default_factory=list)

    @property
    def left_out(self) -> list[str]:
        """The lines on what cannot be used."""
        return list(self.refused.values())

    @property
    def backbone(self) -> Backbone:
        """All chains as one."""
        return replace(together(self.chains), name=self.name)


def is_structure(name: str) -> bool:
    """Whether a file is called as PDB and mmCIF files are."""
    return bool(_SUFFIX.search(name)) and not PurePath(name).name.startswith(".")


def stem(name: str) -> str:
    """The name of a structure from that of its file: 1abc of pdb1abc.ent.gz."""
    bare = _SUFFIX.sub("", PurePath(name).name)
    return bare[3:] if re.fullmatch(r"pdb\d\w{3}", bare) else bare


def title(structure: str, chain: str) -> str:
    """The name of a chain: 1abc_A; a file that is called after its chain keeps its name."""
    return structure if not chain or structure.endswith(f"_{chain}") else f"{structure}_{chain}"


def parse(piece: Piece) -> Structure:
    """The chains of a file and what is wrong with the others; never raises for bad input."""
    name = stem(piece.name)
    try:
        if piece.error:
            raise InputError(piece.error)
        contents = read_atoms(_text(piece.data))
    except InputError as error:
        return Structure(name, refused={None: " ".join(f"{piece.where}: {error}".split())})
    chains, refused = chains_of(contents)
    named = [
        replace(c, name=title(name, c.chains[0]), source=_where(piece, c.chains[0])) for c in chains
    ]
    lines: dict[str | None, str] = {
        chain: " ".join(f"{_where(piece, chain)}: {why}".split()) for chain, why in refused
    }
    return Structure(name, named, lines, contents.models, contents.remarks)


def _where(piece: Piece, chain: str) -> str:
    return f"{piece.where}, chain {chain or '(no name)'}"


def _text(data: bytes) -> str:
    """The text of a file, unpacked."""
    opener = next((v for k, v in PACKED.items() if data.startswith(k)), None)
    if opener is not None:
        try:
            with opener(BytesIO(data)) as file:
                data = file.read(LARGEST + 1)
        except DAMAGE as error:
            raise InputError(f"it cannot be unpacked ({error}): copy the file again") from error
    if len(data) > LARGEST:
        raise InputError(f"it is longer than {LARGEST >> 20} MB: give its chains as files")
    if b"\0" in data:
        raise InputError(NO_TEXT)
    return data.decode("utf-8-sig", "replace")


def together(chains: Sequence[Backbone]) -> Backbone:
    """Structures one after the other, as one; the first gives the name."""
    rows: dict[str, Any] = {
        name: np.concatenate([getattr(chain, name) for chain in chains])
        for name in ("coords", "chain", "number", "insertion")
    }
    return replace(chains[0], sequence="".join(chain.sequence for chain in chains), **rows)
