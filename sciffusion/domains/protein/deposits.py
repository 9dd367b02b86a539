"""Entries of the Protein Data Bank, fetched one by one: datasets/pdb/card.yaml says from where.

Each is a packed mmCIF, whose own checksum proves it whole. A second call fetches what is missing.
An entry that the server does not have is told; where the network fails, the call ends and can go on
later. (Biopython's PDBList neither resumes nor tells the two apart.)
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import Progress

from sciffusion import resources
from sciffusion.data.download import CHUNK, NotFound, download
from sciffusion.domains.protein.records import DAMAGE
from sciffusion.errors import InputError

TRIES, PAUSE = 3, 1.0
"""How often an entry is asked for, and seconds before the second time; twice that before each
further one."""
AT_ONCE = 4
"""Entries on their way at a time."""


def deposit(name: str, entries: Sequence[str], folder: Path) -> tuple[list[Path], list[str]]:
    """(files of the entries, in order, a line for each that there is none of).

    Args:
        name: "pdb".
        entries: PDB codes.
        folder: where they are kept.

    Raises:
        InputError: another name; or the network fails (call again to go on).
    """
    if name != "pdb":
        raise InputError(f"dataset={name} is not known: pdb; for others give input=FILE")
    card = yaml.safe_load(resources.path("datasets", "pdb/card.yaml").read_text())
    console = Console(stderr=True)
    fetch = partial(fetch_entry, folder=folder, address=card["address"])
    files: list[Path] = []
    lost: list[str] = []
    with (
        Progress(console=console, disable=not console.is_terminal, transient=True) as bar,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        try:
            for found in bar.track(pool.map(fetch, entries), len(entries), description="fetching"):
                if isinstance(found, Path):
                    files.append(found)
                else:
                    lost.append(found)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return files, lost


def fetch_entry(code: str, folder: Path, address: str) -> Path | str:
    """The file of an entry, or why the server has none.

    Args:
        address: with {id} in the place of the code.

    Raises:
        InputError: the network fails, or the file comes garbled, time and again.
    """
    for attempt in range(TRIES):
        try:
            file = download(address.format(id=code), folder, None, quiet=True)
            _check(file)
            return file
        except NotFound as error:
            return f"{code}: {error}"
        except InputError as error:
            if attempt == TRIES - 1:
                raise InputError(f"{code}: {error} (fetched entries are kept)") from error
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError


def _check(file: Path) -> None:
    """Remove a packed file that is not whole."""
    try:
        with gzip.open(file) as content:
            while content.read(CHUNK):
                pass
    except DAMAGE as error:
        file.unlink()
        raise InputError(f"{file.name} came garbled ({error}): run again") from error
