"""The mean of a figure over repeats of an experiment, with Student's interval.

For a handful of seeds a bootstrap is too narrow: n repeats have only so many resamples. What is
compared on the same seeds is compared pair by pair, which takes out what the seeds share.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from sciffusion.errors import InputError
from sciffusion.metrics.bootstrap import Interval


def repeats_interval(values: Float[np.ndarray, " n"], level: float = 0.95) -> Interval:
    """Mean of n repeats and its interval; without ends where there is one repeat.

    Raises:
        InputError: no repeats.
    """
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    if not n:
        raise InputError("an interval of no repeats: give at least one")
    mean = float(values.mean())
    if n == 1:
        return Interval(mean, float("nan"), float("nan"))
    half = float(t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)
