"""What every measure of feature sets asks of its input."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from sciffusion.errors import InputError


def as_features(
    features: Shaped[np.ndarray, "n d"], name: str, at_least: int
) -> Float[np.ndarray, "n d"]:
    """The features in float64.

    Raises:
        InputError: not a table of finite numbers, or fewer than `at_least` rows.
    """
    table = np.asarray(features, dtype=np.float64)
    if table.ndim != 2:
        raise InputError(f"{name}: features must be (N, D), got {table.shape}; flatten each sample")
    if len(table) < at_least:
        raise InputError(f"{name}: {len(table)} rows, this measure needs {at_least}; give more")
    bad = ~np.isfinite(table).all(1)
    if bad.any():
        raise InputError(
            f"{name}: row {bad.argmax()} ({bad.sum()} of {len(table)}) is not finite; "
            "leave failed samples out and report how many there were"
        )
    return table


def as_feature_pair(
    a: Shaped[np.ndarray, "n d"], b: Shaped[np.ndarray, "m d"], at_least: int
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Two sets of features of one width, in float64.

    Raises:
        InputError: as `as_features`, or the widths differ.
    """
    a, b = as_features(a, "first set", at_least), as_features(b, "second set", at_least)
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"features have {a.shape[1]} columns in the first set and {b.shape[1]} in the second; "
            "use one extractor for both"
        )
    return a, b
