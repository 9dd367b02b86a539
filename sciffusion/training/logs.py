"""Where the numbers of a training go. A resumed run takes back the rows after its checkpoint."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Protocol

from sciffusion.atomic import atomic_path
from sciffusion.io.run import Run


class Log(Protocol):
    """A sink of numbers."""

    def start(self, run: Run, step: int) -> None:
        """Begin, or go on after `step`: later rows are dropped."""

    def row(self, step: int, values: dict[str, float]) -> None:
        """Numbers of a step."""

    def picture(self, step: int, image: Any) -> None:
        """A picture of a step."""

    def close(self) -> None:
        """The end."""


class Csv:
    """metrics.csv: deterministic numbers only, so that a resumed run writes the same file."""

    columns = ("step", "loss", "grad_norm", "lr")

    def start(self, run: Run, step: int) -> None:
        self.path = run.metrics
        self._keep(step)
        self._file = self.path.open("a", newline="")
        self._writer = csv.writer(self._file)

    def _keep(self, step: int) -> None:
        rows = [list(self.columns)]
        if self.path.exists():
            for row in csv.reader(self.path.read_text().splitlines()[1:]):
                # A killed writer may leave half a row.
                if len(row) == len(self.columns) and row[0].isdigit() and int(row[0]) <= step:
                    rows.append(row)
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    def row(self, step: int, values: dict[str, float]) -> None:
        self._writer.writerow([step, *(f"{values[c]:.9g}" for c in self.columns[1:])])
        self._file.flush()

    def picture(self, step: int, image: Any) -> None:
        """A table holds no pictures."""

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """tensorboard/: the same and the sample pictures."""

    def start(self, run: Run, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder: Path = run.path / "tensorboard"
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def row(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, image: Any) -> None:
        import numpy as np

        self._writer.add_image("samples", np.asarray(image), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()
