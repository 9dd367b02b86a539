"""What a long request tells a person on stderr: a progress bar, and lines above it."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn


class Board:
    """A progress bar where stderr is a terminal; lines anywhere.

    Args:
        silent: no bar.
    """

    def __init__(self, silent: bool = False) -> None:
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=silent or not self.console.is_terminal,
            transient=True,
        )
        self.conformers, self.began = 0, time.monotonic()

    def __enter__(self) -> Board:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def start(self, total: int | None) -> None:
        """Begin; total is how many molecules to expect, None if unknown."""
        self.task, self.began = self.bar.add_task("drawing", total=total), time.monotonic()

    def advance(self, molecules: int, conformers: int) -> None:
        """So many more are done."""
        self.conformers += conformers
        rate = self.conformers / max(time.monotonic() - self.began, 1e-9)
        done = self.bar.tasks[self.task].completed + molecules
        text = f"{done:,.0f} molecules, {rate:,.1f} conformers/s"
        self.bar.update(self.task, completed=done, description=text)

    def say(self, text: str) -> None:
        """One line for a person."""
        line = f"sciffusion: {' '.join(text.split())}"
        self.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
