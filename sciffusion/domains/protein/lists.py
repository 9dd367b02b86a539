"""Lists of chains and their clusters: CSV, or one name a line.

A name is that of a chain (2h0q_B, or 2h0q,B in two columns) or of a whole file or entry (2h0q).
PDB codes may be written in capitals; chains may not.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sciffusion.data.download import digest
from sciffusion.errors import InputError

NAME_COLUMNS = ("file", "name", "id", "pdb", "entry", "structure")
UNCLUSTERED = -1
_CHAIN = re.compile(r"(\d\w{3})[_.]?(\w*)$")


@dataclass(frozen=True)
class Names:
    """A list.

    Attributes:
        clusters: by name; UNCLUSTERED where the list does not say it.
        facts: the file's name and checksum.
    """

    clusters: Mapping[str, int]
    facts: Mapping[str, str]

    def __contains__(self, name: str) -> bool:
        return key(name) in self.clusters

    def cluster(self, chain: str, structure: str) -> int:
        """Of a chain, else of its file."""
        return self.clusters.get(key(chain), self.clusters.get(key(structure), UNCLUSTERED))

    def chains(self, structure: str) -> list[str]:
        """The chains of an entry that the list names."""
        start = f"{key(structure)}_"
        return [name.removeprefix(start) for name in self.clusters if name.startswith(start)]

    @property
    def entries(self) -> list[str]:
        """PDB codes, in order.

        Raises:
            InputError: a name is none.
        """
        for name in self.clusters:
            if not re.fullmatch(r"\d[a-z0-9]{3}(_\w+)?", name):
                raise InputError(
                    f"{self.facts['name']}: {name!r} is no PDB code: write 2h0q or 2h0q_B"
                )
        return list(dict.fromkeys(name[:4] for name in self.clusters))


def key(name: str) -> str:
    """A name as lists hold it: PDB codes in lower case, 2h0q_B for 2H0Q.B and 2H0QB."""
    found = _CHAIN.fullmatch(name)
    if found is None:
        return name
    code, chain = found.groups()
    return f"{code.lower()}_{chain}" if chain else code.lower()


def read_names(path: str | Path) -> Names:
    """A list from a file: CSV with a header (file or name or pdb; chain; cluster...), or lines.

    Raises:
        InputError: it cannot be read, is empty, or a cluster is no number.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise InputError(f"cannot read the list {path}: {reason}; check the path") from error
    rows = [
        (number, [cell.strip() for cell in cells])
        for number, cells in enumerate(csv.reader(text.splitlines()), 1)
        if any(cell.strip() for cell in cells) and not cells[0].startswith("#")
    ]
    columns = {"name": 0, "chain": 1}
    if rows and (header := _header(rows[0][1])):
        columns, rows = header, rows[1:]
    if not rows:
        raise InputError(f"{path} names no chain: write one a line, as 2h0q_B")
    found = {}
    for number, cells in rows:
        row = {k: cells[at] for k, at in columns.items() if at < len(cells)}
        name, cluster = row.get("name", ""), row.get("cluster", "")
        try:
            value = int(cluster) if cluster else UNCLUSTERED
        except ValueError as error:
            raise InputError(f"{path}, line {number}: cluster {cluster!r} is no number") from error
        if not name:
            raise InputError(f"{path}, line {number}: it has no name; write 2h0q_B")
        chain = row.get("chain", "")
        found[key(f"{name}_{chain}" if chain else name)] = value
    return Names(found, {"name": path.name, "sha256": digest(path, "sha256")})


def _header(cells: list[str]) -> dict[str, int] | None:
    """Where the columns are, if this is a header."""
    titles = [cell.lower() for cell in cells]
    name = next((titles.index(k) for k in NAME_COLUMNS if k in titles), None)
    if name is None:
        return None
    columns = {"name": name}
    if "chain" in titles:
        columns["chain"] = titles.index("chain")
    cluster = next((k for k, title in enumerate(titles) if title.startswith("cluster")), None)
    return columns if cluster is None else columns | {"cluster": cluster}
