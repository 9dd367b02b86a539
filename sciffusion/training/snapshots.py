"""When a training's power-function averages go to disk, and which files stay.

Files lie evenly, `number` of them at most and that of the last step. A training that goes on
beyond what was planned doubles the spacing and drops every second file, so that disk use stays
bounded. What lies there after step k follows from k alone: a resumed run has the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L

from sciffusion.core.profiles import gamma_of_length
from sciffusion.errors import InputError
from sciffusion.io.run import Run
from sciffusion.io.snapshots import save_snapshot, snapshot_path, steps_of
from sciffusion.training.module import DiffusionModule

PRECISIONS = ("full", "half")


@dataclass(frozen=True)
class Spacing:
    """Where snapshots lie.

    Attributes:
        number: of files, at most, the last step's apart; 0 is off.
        every: steps from one to the next, to begin with.
        profiles: lengths of the averages that are tracked.
        half: whether files are in half precision.
    """

    number: int
    every: int
    profiles: tuple[float, ...]
    half: bool

    @classmethod
    def of(cls, trainer: Mapping[str, Any]) -> Spacing:
        """From the configuration of a trainer; one without `snapshots` takes none.

        Raises:
            InputError: a number, a length or a precision that makes no sense.
        """
        node = trainer.get("snapshots") or {}
        number = node.get("number", 0)
        if not number:
            return cls(0, 1, (), False)
        where, every, profiles = "trainer.snapshots", node["every"], node["profiles"]
        if number < 2:
            raise InputError(f"{where}.number={number} must be at least 2, or 0 for none")
        if every is None:
            every = -(-trainer["steps"] // number)
        if not isinstance(every, int) or every < 1:
            raise InputError(f"{where}.every={every} must be a whole number of at least 1")
        if node["precision"] not in PRECISIONS:
            raise InputError(f"{where}.precision={node['precision']} is not known: full or half")
        if not profiles or len(set(profiles)) < len(profiles):
            raise InputError(f"{where}.profiles={profiles}: give different lengths, as [0.05,0.1]")
        for length in profiles:
            try:
                gamma_of_length(length)
            except (TypeError, ValueError) as error:
                raise InputError(f"{where}.profiles: {length} is no length: {error}") from error
        return cls(number, every, tuple(map(float, profiles)), node["precision"] == "half")

    def at(self, step: int) -> int:
        """The spacing once `step` is reached: doubled until `number` files reach so far."""
        found = self.every
        while step // found > self.number:
            found *= 2
        return found

    def due(self, step: int) -> bool:
        """Whether a snapshot is taken at this step."""
        return self.number > 0 and step % self.at(step) == 0


class Snapshots(L.Callback):
    """Writes the module's averages into the run, and drops what is too much.

    Args:
        say: where a line for people goes.
    """

    def __init__(self, run: Run, spacing: Spacing, say: Callable[[str], None] = print) -> None:
        self.run, self.spacing, self.say = run, spacing, say

    def on_fit_start(self, trainer: L.Trainer, module: DiffusionModule) -> None:
        if not (self.spacing.number and trainer.is_global_zero):
            return
        for step, path in steps_of(self.run.snapshots).items():
            if step > module.done:  # of a future that a kill has undone
                path.unlink()
        size = sum(a.shadow[n].nbytes for a in module.profiles for n in a.averaged)
        most = size * (self.spacing.number + 1) // (2 if self.spacing.half else 1)
        self.say(
            f"snapshots: at most {self.spacing.number + 1} files, {most / 1e6:.1f} MB, in "
            f"{self.run.snapshots}"
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, module: DiffusionModule, outputs: Any, batch: Any, index: int
    ) -> None:
        last = module.done == module.steps and self.spacing.number > 0
        if not (trainer.is_global_zero and (last or self.spacing.due(module.done))):
            return
        folder, here = self.run.snapshots, module.done
        save_snapshot(folder, module.profiles, module.trajectory, self.spacing.half)
        kept = [step for step in steps_of(folder) if step < here]
        if len(kept) >= self.spacing.number + (here % self.spacing.at(here) > 0):
            for step in kept:
                if step % self.spacing.at(here):
                    snapshot_path(folder, step).unlink()
