"""The floor of a measure: what real data scores against real data, at the same n.

A Frechet distance or a divergence of two finite sets is never 0, and it falls as n grows. So a
figure of n samples against the test set is read beside metric(n real training rows, test set):
the score of a perfect generator that draws from the training data's law.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped

from sciffusion.errors import InputError


def real_floor(
    metric: Callable[[Shaped[np.ndarray, "n ..."], Shaped[np.ndarray, "m ..."]], float],
    train: Shaped[np.ndarray, "k ..."],
    test: Shaped[np.ndarray, "m ..."],
    n: int,
    repeats: int = 5,
    seed: int = 0,
) -> float:
    """Mean of `metric(subset, test)` over random subsets of n training rows.

    Args:
        metric: of two sets of rows, the measured one first.
        train: (K, ...) rows of real training data.
        test: (M, ...) rows of real data held out.
        n: as many rows as the samples that the floor stands beside.
        repeats: subsets, each drawn without replacement.
        seed: of the subsets.

    Raises:
        InputError: n is less than one or more than the training data holds.
    """
    if not 1 <= n <= len(train):
        raise InputError(
            f"a floor at n = {n} from {len(train)} training rows: measure {len(train)} samples or "
            "fewer, so that figure and floor share n"
        )
    rng = np.random.default_rng(seed)
    subsets = (train[rng.permutation(len(train))[:n]] for _ in range(repeats))
    return float(np.mean([metric(subset, test) for subset in subsets]))
