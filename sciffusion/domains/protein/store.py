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
import pyarrow.ipc as ipc

from sciffusion.atomic import atomic_path
from sciffusion.domains.protein.backbone import ATOMS, Backbone
from sciffusion.errors import InputError

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


def write_shard(path: Path, records: Sequence[Backbone]) -> None:
    """Backbones as one file, whole or not at all; coordinates in single precision."""
    columns: dict[str, list[Any]] = {
        "coords": [pa.array(b.coords.astype(np.float32).ravel()) for b in records]
    }
    for name in SCHEMA.names[:-1]:
        values = [getattr(b, name) for b in records]
        columns[name] = [v.tolist() if isinstance(v, np.ndarray) else v for v in values]
    arrays = [pa.array(columns[f.name], f.type) for f in SCHEMA]
    _write(path, pa.Table.from_arrays(arrays, schema=SCHEMA))


def read_store(path: str | Path) -> Iterator[Backbone]:
    """The backbones of a store's directory, in order.

    Raises:
        InputError: there is no store, or a shard cannot be read.
    """
    for shard in _shards(path):
        for batch in _read(shard).to_batches():
            columns = {name: batch.column(name) for name in SCHEMA.names}
            for row in range(batch.num_rows):
                yield _backbone({k: v[row] for k, v in columns.items()})


def write_clusters(path: str | Path, clusters: Sequence[int]) -> None:
    """Set the clusters of a store's backbones, given in their order."""
    start = 0
    for shard in _shards(path):
        table = _read(shard)
        mine = pa.array(clusters[start : start + len(table)], pa.int32())
        at = SCHEMA.get_field_index("cluster")
        _write(shard, table.set_column(at, SCHEMA.field(at), mine).cast(SCHEMA))
        start += len(table)


def _shards(path: str | Path) -> list[Path]:
    root = Path(path)
    shards = sorted(root.glob("part-*.arrow"))
    if not shards:
        raise InputError(
            f"{root} is no store of proteins (no part-*.arrow): make one with "
            "python -m sciffusion.prepare domain=protein input=FILE out=DIR"
        )
    return shards


def _read(shard: Path) -> pa.Table:
    try:
        with ipc.open_file(str(shard)) as file:
            table = file.read_all()
        if table.schema.names != SCHEMA.names:
            raise ValueError("its columns are not those of a protein store")
    except (pa.ArrowInvalid, OSError, ValueError) as error:
        raise InputError(f"cannot read {shard}: {error}; prepare it again") from error
    return table


def _write(path: Path, table: pa.Table) -> None:
    with (
        atomic_path(path) as temporary,
        ipc.new_file(
            str(temporary), SCHEMA, options=ipc.IpcWriteOptions(compression="zstd")
        ) as file,
    ):
        file.write_table(table)


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
