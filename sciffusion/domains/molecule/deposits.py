"""Published data sets: fetched with their checksum, cut into pieces without unpacking them.

QM9 is a tar archive of xyz files that hold their SMILES, GEOM one of MessagePack maps from SMILES
to conformers; no pickle is read. Bonds are those of the SMILES; a record whose coordinates show
others is left out. Addresses, checksums and licences are in datasets/NAME/card.yaml.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from sciffusion import resources
from sciffusion.data.download import download
from sciffusion.domains.molecule.prepare import Source
from sciffusion.domains.molecule.readers import DAMAGE
from sciffusion.domains.molecule.records import Piece
from sciffusion.errors import InputError

HARTREE = 627.509474
"""kcal/mol."""
LARGEST = 1 << 20
"""Bytes of the largest xyz file of QM9."""


def deposit(name: str, root: Path) -> Source:
    """The data set of that name; fetched into `root` if it is not there.

    Raises:
        InputError: unknown, not to be had by an address, or see `download`.
    """
    cutters = {"qm9": cut_qm9, "geom_qm9": cut_geom, "geom_drugs": cut_geom}
    if name not in (*cutters, "openff"):
        known = ", ".join([*cutters, "molecules"])
        raise InputError(f"dataset={name} is not known: {known}; for others give input=FILE")
    card = yaml.safe_load(resources.path("datasets", f"{name}/card.yaml").read_text())
    if card["address"] is None:
        raise InputError(f"dataset={name} has no address to fetch: {card['how']}")
    if name.startswith("geom"):
        _msgpack()
    return Source([download(card["address"], root, card["checksum"])], cutters[name])


@contextmanager
def _members(path: Path, suffix: str) -> Iterator[Iterator[tuple[str, IO[bytes], IO[bytes]]]]:
    """(name, content, archive as it lies on the disk) of the files of an archive, in order."""

    def members() -> Iterator[tuple[str, IO[bytes], IO[bytes]]]:
        for member in tar:
            if member.isfile() and member.name.endswith(suffix):
                content = tar.extractfile(member)  # only read: nothing lands on the disk
                assert content is not None
                yield Path(member.name).name, content, raw

    with path.open("rb") as raw:
        try:
            with tarfile.open(fileobj=raw, mode="r|*") as tar:
                yield members()
        except (tarfile.TarError, *DAMAGE) as error:
            raise InputError(f"{path} is no readable archive ({error}): remove it") from error


def cut_qm9(path: Path) -> Iterator[Piece]:
    """The xyz files of dsgdb9nsd.xyz.tar.bz2 (Ramakrishnan et al. 2014), energies U0."""
    with _members(path, ".xyz") as members:
        for name, content, raw in members:
            lines = content.read(LARGEST).decode("utf-8", "replace").split("\n")
            where, title = f"{path.name}, {name}", name.removesuffix(".xyz")
            try:
                count = int(lines[0])
                energy = HARTREE * float(lines[1].split()[12])
                smiles = lines[count + 3].split()[0]
            except (ValueError, IndexError):
                error = "it is not laid out as QM9's files are"
                yield Piece(where, "xyz", title, error=error, position=raw.tell())
                continue
            text = "\n".join([lines[0], "", *lines[2 : count + 2]])
            yield Piece(where, "xyz", title, text, None, smiles, energy, raw.tell())


def cut_geom(path: Path) -> Iterator[Piece]:
    """The conformers of a *_crude.msgpack.tar.gz of GEOM (Axelrod & Gomez-Bombarelli 2022).

    A molecule's name is its SMILES; energies are GFN2-xTB's.
    """
    with _members(path, ".msgpack") as members:
        for _, content, raw in members:
            for count, (smiles, molecule) in enumerate(_maps(content), 1):
                for number, conformer in enumerate(molecule["conformers"], 1):
                    where = f"{path.name}, molecule {count}, conformer {number}"
                    rows = conformer["xyz"]
                    text = "\n".join(
                        [str(len(rows)), "", *(f"{int(z)} {x} {y} {w}" for z, x, y, w in rows)]
                    )
                    energy = conformer.get("totalenergy")
                    energy = None if energy is None else HARTREE * energy
                    yield Piece(where, "xyz", smiles, text, None, smiles, energy, raw.tell())


def _maps(content: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(SMILES, what is known of it); one molecule is held at a time."""
    msgpack = _msgpack()
    unpacker = msgpack.Unpacker(content, raw=False, strict_map_key=False)
    while True:
        try:
            size = unpacker.read_map_header()
        except msgpack.OutOfData:
            return
        for _ in range(size):
            yield unpacker.unpack(), unpacker.unpack()


def _msgpack() -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise InputError(
            'GEOM is read with msgpack, which is not installed: pip install "sciffusion[geom]"'
        ) from error
    return msgpack
