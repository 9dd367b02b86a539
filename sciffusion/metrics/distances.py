"""Euclidean distances between two large sets of rows, a block at a time.

|a - b|^2 = |a|^2 + |b|^2 - 2 a.b turns the work into matrix products; rows are centred on the
second set first, so that little is lost to cancellation. Memory is one block, never N x M.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

BLOCK_ENTRIES = 1 << 22  # float64 entries of one block of distances: 32 MiB


def squared_distance_blocks(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]
) -> Iterator[tuple[slice, Float[np.ndarray, "block m"]]]:
    """Squared distances of consecutive rows of `a` to all of `b`, with the rows' slice."""
    centre = b.mean(0)
    a, b = a - centre, b - centre
    b_norm = np.einsum("md,md->m", b, b)
    step = max(1, BLOCK_ENTRIES // len(b))
    for start in range(0, len(a), step):
        rows = a[start : start + step]
        squared = np.einsum("nd,nd->n", rows, rows)[:, None] + b_norm - 2 * rows @ b.T
        yield slice(start, start + len(rows)), np.maximum(squared, 0)


def nearest(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Distance from each row of `a` to its nearest row of `b`, and which row that is.

    The distance is recomputed from the pair itself, so an exact copy is at exactly 0.
    """
    index = np.empty(len(a), dtype=np.int64)
    for rows, squared in squared_distance_blocks(a, b):
        index[rows] = squared.argmin(1)
    step = max(1, BLOCK_ENTRIES // a.shape[1])
    distance = np.empty(len(a))
    for start in range(0, len(a), step):
        rows = slice(start, start + step)
        distance[rows] = np.linalg.norm(a[rows] - b[index[rows]], axis=1)
    return distance, index


def kth_neighbour_squared(a: Float[np.ndarray, "n d"], k: int) -> Float[np.ndarray, " n"]:
    """Squared distance from each row to its k-th nearest other row."""
    radius = np.empty(len(a))
    for rows, squared in squared_distance_blocks(a, a):
        squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = np.inf  # not itself
        radius[rows] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    return radius
