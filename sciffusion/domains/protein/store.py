"""The Arrow store of prepared proteins: a directory of shards, one row a backbone.

`part-*.arrow` are Arrow IPC files (zstd); `left_out.txt` says what did not come in and why. Reading
needs neither Biopython nor PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sciffusion.data.arrow import ArrowStore
from sciffusion.domains.protein.backbone import ATOMS, Backbone

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("sequence", pa.string()),
        ("source", pa.string()),
        ("cluster", pa.int32()),
        ("chain", pa.list_(pa.string())),
        ("number", pa.list_(pa.int32())),
        ("insertion", pa.list_(pa.string())),
        ("coords", pa.list_(pa.float32())),
    ],
    metadata={"sciffusion": "proteins 1"},
)
_STORE = ArrowStore(
    SCHEMA,
    absent="is no store of proteins (no part-*.arrow): make one with "
    "python -m sciffusion.prepare domain=protein input=FILE out=DIR",
    foreign="its columns are not those of a protein store",
)


def write_shard(path: Path, records: Sequence[Backbone]) -> None:
    """Backbones as one file, whole or not at all; coordinates in single precision."""
    columns: dict[str, list[Any]] = {
        "coords": [pa.array(b.coords.astype(np.float32).ravel()) for b in records]
    }
    for name in SCHEMA.names[:-1]:
        values = [getattr(b, name) for b in records]
        columns[name] = [v.tolist() if isinstance(v, np.ndarray) else v for v in values]
    _STORE.write(path, columns)


def read_store(path: str | Path) -> Iterator[Backbone]:
    """The backbones of a store's directory, in order.

    Raises:
        InputError: there is no store, or a shard cannot be read.
    """
    return map(_backbone, _STORE.rows(path))


def write_clusters(path: str | Path, clusters: Sequence[int]) -> None:
    """Set the clusters of a store's backbones, given in their order."""
    start = 0
    for shard in _STORE.shards(path):
        table = _STORE.read(shard)
        columns = {name: table[name] for name in SCHEMA.names}
        _STORE.write(shard, columns | {"cluster": clusters[start : start + len(table)]})
        start += len(table)


def _backbone(row: dict[str, pa.Scalar]) -> Backbone:
    sequence = row["sequence"].as_py()
    return Backbone(
        coords=row["coords"].values.to_numpy(zero_copy_only=False).reshape(-1, len(ATOMS), 3),
        sequence=sequence,
        chain=np.array(row["chain"].as_py(), dtype=str),
        number=np.array(row["number"].as_py(), dtype=np.int32),
        insertion=np.array(row["insertion"].as_py(), dtype=str),
        name=row["name"].as_py(),
        cluster=row["cluster"].as_py(),
        source=row["source"].as_py(),
    )
