"""Kernel distance: the unbiased squared maximum mean discrepancy with a cubic kernel.

MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y), k(x, y) = (x.y/d + 1)^3, pairs x != x' only;
the KID of Binkowski et al. 2018 (arXiv:1801.01401). Unlike the Frechet distance its expectation
does not depend on n; about 0 for equal laws, and negative half of the time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Shaped

from sciffusion.errors import InputError
from sciffusion.metrics.checks import as_feature_pair
from sciffusion.metrics.distances import BLOCK_ENTRIES


def kid(x: Shaped[np.ndarray, "n d"], y: Shaped[np.ndarray, "m d"]) -> float:
    """MMD^2 over all pairs of the two sets.

    Raises:
        InputError: fewer than two rows, a row is not finite, or the widths differ.
    """
    return float(kid_of_resamples(x, y, np.ones((1, len(x))))[0])


def kid_of_subsets(
    x: Shaped[np.ndarray, "n d"],
    y: Shaped[np.ndarray, "m d"],
    size: int = 1000,
    count: int = 100,
    seed: int = 0,
) -> Float[np.ndarray, " count"]:
    """MMD^2 of `count` random subsets of `size` rows of each set, as the paper reports it.

    Raises:
        InputError: as `kid`, or a set has fewer than `size` rows.
    """
    x, y = as_feature_pair(x, y, at_least=2)
    if not 2 <= size <= min(len(x), len(y)):
        raise InputError(
            f"KID subsets of {size} rows from sets of {len(x)} and {len(y)}; "
            "choose a size from 2 to the smaller set"
        )
    rng = np.random.default_rng(seed)
    return np.array(
        [
            kid(rng.permutation(x)[:size], rng.permutation(y)[:size])  # without replacement
            for _ in range(count)
        ]
    )


def kid_of_resamples(
    x: Shaped[np.ndarray, "n d"],
    y: Shaped[np.ndarray, "m d"],
    counts: Shaped[np.ndarray, "r n"],
) -> Float[np.ndarray, " r"]:
    """MMD^2 of R resamples of `x`, each given by how often it holds every row.

    All resamples share one pass over the kernel, so a bootstrap costs little more than one figure.

    Raises:
        InputError: as `kid`.
    """
    x, y = as_feature_pair(x, y, at_least=2)
    w = np.asarray(counts, dtype=np.float64)
    n, m = w.sum(1), len(y)
    within_x, across = np.zeros(len(w)), np.zeros(len(w))
    for rows, kernel in _kernel_blocks(x, x):
        own = kernel[np.arange(len(kernel)), np.arange(rows.start, rows.stop)]
        within_x += np.einsum("rb,rb->r", w @ kernel.T, w[:, rows]) - w[:, rows] @ own
    for rows, kernel in _kernel_blocks(x, y):
        across += w[:, rows] @ kernel.sum(1)
    within_y = 0.0
    for rows, kernel in _kernel_blocks(y, y):
        within_y += kernel.sum() - kernel[:, rows].trace()
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m)


def _kernel_blocks(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]
) -> Iterator[tuple[slice, Float[np.ndarray, "block m"]]]:
    step = max(1, BLOCK_ENTRIES // len(b))
    for start in range(0, len(a), step):
        rows = a[start : start + step]
        yield slice(start, start + len(rows)), (rows @ b.T / a.shape[1] + 1) ** 3
