"""Which average of a training is best: lengths compared on some seeds, reported on others.

The best of several noisy figures looks better than it is. So the length that does best on the
seeds `choose` is measured anew on the seeds `report`, beside the run's own average on the same
seeds; only these figures are told as results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sciffusion.errors import InputError
from sciffusion.metrics.bootstrap import Interval
from sciffusion.metrics.repeats import repeats_interval
from sciffusion.metrics.table import Row, Table

Measure = Callable[[float | None, int], Row]
"""The row of the metric for a length (None is the run's own average) and a seed of the samples."""


@dataclass(frozen=True)
class Sweep:
    """What was found.

    Attributes:
        row: one of the rows measured: the metric's name, unit, floor and better direction.
        lengths: compared, rising.
        choose, report: seeds.
        chosen: place of the best one in `lengths`.
        curve: figure of each length and seed of `choose`.
        own: of the run's own average, on the same.
        result, own_result: of the chosen length and of the run's own, on the seeds of `report`.
        word, other: what a length and the run's own average are called; a sweep may be of something
            else than lengths.
    """

    row: Row
    lengths: Sequence[float]
    choose: Sequence[int]
    report: Sequence[int]
    chosen: int
    curve: Float[np.ndarray, "lengths choose"]
    own: Float[np.ndarray, " choose"]
    result: Float[np.ndarray, " report"]
    own_result: Float[np.ndarray, " report"]
    word: str = "length"
    other: str = "the run's own average"

    @property
    def length(self) -> float:
        """The chosen one."""
        return self.lengths[self.chosen]

    @property
    def difference(self) -> Interval:
        """Chosen less own, seed by seed."""
        return repeats_interval(self.result - self.own_result)

    @property
    def verdict(self) -> str:
        """Whether the chosen length is better than the run's own average, in a sentence."""
        found, sign = self.difference, 1 if self.row.better == "higher" else -1
        one = f"{self.word.capitalize()} {self.length:.3g}"
        low, high = sorted((sign * found.low, sign * found.high))
        if low > 0:
            text = f"{one} is better than {self.other}."
        elif high < 0:
            text = f"{one} is worse than {self.other}."
        else:
            text = f"{one} is not told apart from {self.other} on {len(self.report)} seeds."
        if len(self.lengths) > 1 and self.chosen in (0, len(self.lengths) - 1):
            text += f" It lies at an end of the range: widen {self.word}s=."
        return text

    def table(self) -> Table:
        """The figures to tell: on seeds that had no part in the choice."""
        n = len(self.report)
        seeds = f"mean over seeds {', '.join(map(str, self.report))}"

        def row(name: str, found: Interval, note: str, floor: float | None = None) -> Row:
            return Row(name, found.value, found.low, found.high, n, floor, self.row.unit,
                       self.row.better, note)  # fmt: skip

        rows = [
            row(f"{self.word} {self.length:.3g}, chosen", repeats_interval(self.result), seeds,
                self.row.floor),
            row(self.other, repeats_interval(self.own_result), seeds, self.row.floor),
            row("difference", self.difference, "seed by seed"),
        ]  # fmt: skip
        return Table(self.row.name, rows)


def sweep(
    measure: Measure,
    lengths: Sequence[float],
    choose: Sequence[int],
    report: Sequence[int],
    **words: str,
) -> Sweep:
    """Compare lengths, choose, and measure the choice anew.

    Args:
        measure: looks at one average once.
        lengths: to compare.
        choose, report: seeds; none in both.
        **words: `word` and `other` of the sweep.

    Raises:
        InputError: no lengths or seeds, a seed in both, or no finite figure to choose by.
    """
    if not lengths or not choose or not report:
        raise InputError("give at least one length, one seed to choose by and one to report on")
    if both := set(choose) & set(report):
        raise InputError(
            f"seed {min(both)} is in seeds= and in report_seeds=: the choice must not be reported "
            "on what it was made by"
        )
    lengths = sorted(lengths)
    rows = [[measure(length, seed) for seed in choose] for length in [*lengths, None]]
    *curve, own = np.array([[row.value for row in line] for line in rows])
    first = rows[0][0]
    means = np.mean(curve, axis=1) * (-1 if first.better == "higher" else 1)
    if not np.isfinite(means).any():
        raise InputError(
            f"{first.name!r} has no finite value at any length: choose by another metric=, or "
            "train longer"
        )
    chosen = int(np.nanargmin(np.where(np.isfinite(means), means, np.nan)))
    result, own_result = (
        np.array([measure(length, seed).value for seed in report])
        for length in (lengths[chosen], None)
    )
    curve = np.array(curve)
    return Sweep(first, lengths, choose, report, chosen, curve, own, result, own_result, **words)
