"""Choosing by noisy figures: the choice is right, and what is told of it is not its own luck."""

import numpy as np
import pytest

from sciffusion.domains.sweep import sweep
from sciffusion.domains.sweep_report import numbers
from sciffusion.errors import InputError
from sciffusion.metrics.repeats import repeats_interval
from sciffusion.metrics.table import Row

LENGTHS = [0.02, 0.05, 0.1, 0.2]


def noisy(seed, length, noise):
    return noise * np.random.default_rng([seed, int(1e4 * (length or 0))]).standard_normal()


def bowl(length, seed, noise=0.0, better="lower", own=1.2):
    """Best at 0.1, where it is 1; the run's own is `own`."""
    value = own if length is None else 1 + abs(np.log(length / 0.1))
    value += noisy(seed, length, noise)
    return Row("figure", value if better == "lower" else -value, floor=0.5, better=better)


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_the_best_length_is_chosen(better):
    found = sweep(lambda v, s: bowl(v, s, 0.01, better), LENGTHS[::-1], [1, 2], [3, 4, 5])
    assert found.length == 0.1
    assert found.curve.shape == (4, 2)
    assert "0.1 is better than the run's own" in found.verdict
    assert found.difference.low * found.difference.high > 0
    assert found.table().rows[0].floor == 0.5


def test_luck_is_not_told_as_a_result():
    """All lengths are equal: the figure told is that of other seeds, and no difference is seen."""
    hits, told = 0, []
    for trial in range(200):

        def measure(length, seed, trial=trial):
            return Row("figure", noisy(1000 * trial + seed, length, 1.0))

        found = sweep(measure, np.geomspace(0.02, 0.2, 8).tolist(), [1], [2, 3, 4, 5])
        assert found.curve[found.chosen].mean() == found.curve.min()  # lucky
        told.append(found.result.mean())
        hits += "is not told apart" not in found.verdict
    assert abs(np.mean(told)) < 0.15  # the standard error is 0.035; the luckiest of 8 is at -1.4
    assert hits < 25  # 5% of 200, and three standard errors


def test_an_end_of_the_range_is_said():
    found = sweep(lambda v, s: bowl(v, s), [0.02, 0.05], [1], [2, 3])
    assert found.length == 0.05
    assert "widen lengths=" in found.verdict
    assert "is worse than" in found.verdict


def test_a_sweep_of_something_else_says_so():
    found = sweep(bowl, LENGTHS, [1, 2], [3], word="scale", other="no guidance")
    assert found.verdict == "Scale 0.1 is not told apart from no guidance on 1 seeds."
    assert [r.name for r in found.table().rows] == [
        "scale 0.1, chosen",
        "no guidance",
        "difference",
    ]


def test_lengths_that_fail_are_not_chosen():
    found = sweep(lambda v, s: Row("f", np.nan) if v == 0.1 else bowl(v, s), LENGTHS, [1, 2], [3])
    assert found.length in (0.05, 0.2)
    assert np.isnan(found.difference.low)  # one seed has no interval
    assert "not told apart" in found.verdict
    assert numbers(found, [0.0] * 4)["curve"][2]["length"] == 0.1
    with pytest.raises(InputError, match="no finite value"):
        sweep(lambda v, s: Row("f", np.nan), LENGTHS, [1], [2])


def test_refusals():
    for lengths, choose, report in (([], [1], [2]), ([0.1], [], [2]), ([0.1], [1], [])):
        with pytest.raises(InputError, match="at least one"):
            sweep(bowl, lengths, choose, report)
    with pytest.raises(InputError, match="seed 2 is in"):
        sweep(bowl, LENGTHS, [1, 2], [2, 3])


def test_students_interval_covers_the_mean():
    """19 times of 20, also with three repeats."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        found = repeats_interval(rng.normal(3, 2, size=3))
        inside += found.low <= 3 <= found.high
    assert abs(inside - 950) < 3 * np.sqrt(1000 * 0.05 * 0.95)
    with pytest.raises(InputError, match="no repeats"):
        repeats_interval(np.zeros(0))
