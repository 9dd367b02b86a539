"""The Arrow store of prepared molecules: a directory of shards, one row a molecule.

`part-*.arrow` are Arrow IPC files (zstd); `left_out.txt` says what did not come in and why. Reading
needs neither RDKit nor PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sciffusion.data.arrow import ArrowStore
from sciffusion.domains.molecule.graph import ATOM_FEATURES, BOND_FEATURES, MolGraph, Record

_ARRAYS = {
    "atoms": (pa.uint8(), (-1, len(ATOM_FEATURES))),
    "bonds": (pa.int16(), (-1, 2)),
    "bond_features": (pa.uint8(), (-1, len(BOND_FEATURES))),
    "tetra": (pa.int16(), (-1, 5)),
    "tetra_sign": (pa.int8(), (-1,)),
    "ez": (pa.int16(), (-1, 4)),
    "ez_sign": (pa.int8(), (-1,)),
}
_TEXT = ("name", "smiles", "scaffold")
SCHEMA = pa.schema(
    [(k, pa.string()) for k in (*_TEXT, "source")]
    + [(k, pa.list_(kind)) for k, (kind, _) in _ARRAYS.items()]
    + [("coords", pa.list_(pa.float32())), ("energy", pa.list_(pa.float64()))],
    metadata={"sciffusion": "molecules 1"},
)
_STORE = ArrowStore(
    SCHEMA,
    absent="is no store of molecules (no part-*.arrow): make one with "
    "python -m sciffusion.prepare domain=molecule input=FILE out=DIR",
    foreign="its columns are not those of a molecule store",
)


def write_shard(path: Path, records: Sequence[Record]) -> None:
    """Records as one file, whole or not at all."""
    columns: dict[str, list] = {name: [] for name in SCHEMA.names}
    for record in records:
        for name in _TEXT:
            columns[name].append(getattr(record.graph, name))
        columns["source"].append(record.source)
        for name, (kind, _) in _ARRAYS.items():
            values = getattr(record.graph, name).ravel()
            columns[name].append(pa.array(values, kind))
        columns["coords"].append(pa.array(record.coords.astype(np.float32).ravel()))
        energy = record.energy if len(record.energy) else np.full(len(record.coords), np.nan)
        columns["energy"].append(pa.array(energy, pa.float64()))
    _STORE.write(path, columns)


def read_store(path: str | Path) -> Iterator[Record]:
    """The records of a store's directory, in order.

    Raises:
        InputError: there is no store, or a shard cannot be read.
    """
    return map(_record, _STORE.rows(path))


def _record(row: dict[str, pa.Scalar]) -> Record:
    arrays = {
        k: row[k].values.to_numpy(zero_copy_only=False).reshape(shape)
        for k, (_, shape) in _ARRAYS.items()
    }
    graph = MolGraph(**arrays, **{k: row[k].as_py() for k in _TEXT})
    coords = row["coords"].values.to_numpy(zero_copy_only=False).reshape(-1, len(graph), 3)
    energy = row["energy"].values.to_numpy(zero_copy_only=False)
    return Record(graph, coords, energy, row["source"].as_py())
