"""Records as an Arrow store: a directory of shards, `part-*.arrow`, one row a record.

Shards are Arrow IPC files (zstd). What a row means, and what is said of a store that is not there,
a domain says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc as ipc

from sciffusion.atomic import atomic_path
from sciffusion.errors import InputError


@dataclass(frozen=True)
class ArrowStore:
    """How the stores of one kind are written and read.

    Attributes:
        schema: of every shard.
        absent: what to say, after its name, of a directory without shards.
        foreign: what to say of a shard with other columns.
    """

    schema: pa.Schema
    absent: str
    foreign: str

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        """Columns as one shard, whole or not at all."""
        table = pa.table(columns, schema=self.schema)
        options = ipc.IpcWriteOptions(compression="zstd")
        with (
            atomic_path(path) as temporary,
            ipc.new_file(str(temporary), self.schema, options=options) as file,
        ):
            file.write_table(table)

    def shards(self, root: str | Path) -> list[Path]:
        """The shards of a directory, in order.

        Raises:
            InputError: there are none.
        """
        shards = sorted(Path(root).glob("part-*.arrow"))
        if not shards:
            raise InputError(f"{Path(root)} {self.absent}")
        return shards

    def read(self, shard: Path) -> pa.Table:
        """All rows of a shard.

        Raises:
            InputError: it cannot be read, or has other columns.
        """
        try:
            with ipc.open_file(str(shard)) as file:
                table = file.read_all()
            if table.schema.names != self.schema.names:
                raise ValueError(self.foreign)
        except (pa.ArrowInvalid, OSError, ValueError) as error:
            raise InputError(f"cannot read {shard}: {error}; prepare it again") from error
        return table

    def rows(self, root: str | Path) -> Iterator[dict[str, pa.Scalar]]:
        """The rows of a directory, in order.

        Raises:
            InputError: there is no shard, or one cannot be read.
        """
        for shard in self.shards(root):
            for batch in self.read(shard).to_batches():
                columns = {name: batch.column(name) for name in self.schema.names}
                for row in range(batch.num_rows):
                    yield {name: column[row] for name, column in columns.items()}
