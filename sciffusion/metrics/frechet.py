"""The Frechet distance of two sets of features, each taken for a Gaussian.

d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2), Dowson & Landau 1982; on Inception
features it is the FID of Heusel et al. 2017 (arXiv:1706.08500). The symmetric form needs
eigenvalues of symmetric matrices only: it stays real when a covariance is singular.

The figure is biased upward, by about tr(C)/n for small samples: compare figures of one n only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from sciffusion.errors import InputError
from sciffusion.metrics.checks import as_feature_pair, as_features


@dataclass(frozen=True)
class Moments:
    """Mean (D,), unbiased covariance (D, D) and number of rows, in float64."""

    mean: Float[np.ndarray, " d"]
    cov: Float[np.ndarray, "d d"]
    n: int


class MomentAccumulator:
    """Mean and covariance of features that arrive in batches (Chan et al. 1979).

    Batches are merged about their own means, so a large common offset costs no digits.
    """

    def __init__(self) -> None:
        self._n = 0
        self._mean: Float[np.ndarray, " d"] | None = None
        self._scatter: Float[np.ndarray, "d d"] | None = None

    def update(self, features: Shaped[np.ndarray, "n d"]) -> None:
        """Add a batch.

        Raises:
            InputError: not (N, D), not finite, or another width than before.
        """
        batch = as_features(features, "batch", at_least=0)
        if len(batch) == 0:
            return
        mean = batch.mean(0)
        scatter = (batch - mean).T @ (batch - mean)
        if self._mean is None or self._scatter is None:
            self._n, self._mean, self._scatter = len(batch), mean, scatter
            return
        if mean.shape != self._mean.shape:
            raise InputError(
                f"batch: {len(mean)} features after batches of {len(self._mean)}; "
                "use one extractor throughout"
            )
        total = self._n + len(batch)
        step = mean - self._mean
        self._scatter = self._scatter + scatter
        self._scatter += np.outer(step, step) * (self._n * len(batch) / total)
        self._mean = self._mean + step * (len(batch) / total)
        self._n = total

    def moments(self) -> Moments:
        """The moments so far.

        Raises:
            InputError: fewer than two rows were seen.
        """
        if self._mean is None or self._scatter is None or self._n < 2:
            raise InputError(f"a covariance needs 2 rows, {self._n} were given; give more")
        return Moments(self._mean, self._scatter / (self._n - 1), self._n)


def moments(features: Shaped[np.ndarray, "n d"]) -> Moments:
    """Mean and unbiased covariance of features.

    Raises:
        InputError: fewer than two rows, or a row is not finite.
    """
    accumulator = MomentAccumulator()
    accumulator.update(features)
    return accumulator.moments()


def frechet_of_moments(a: Moments, b: Moments) -> float:
    """Squared Frechet distance of two Gaussians, in squared units of the features."""
    values, vectors = np.linalg.eigh(a.cov)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ b.cov @ root).clip(min=0)
    shift = a.mean - b.mean
    squared = shift @ shift + np.trace(a.cov) + np.trace(b.cov) - 2 * np.sqrt(cross).sum()
    return max(float(squared), 0.0)


def frechet_distance(a: Shaped[np.ndarray, "n d"], b: Shaped[np.ndarray, "m d"]) -> float:
    """Squared Frechet distance of two sets of features; 0 is best.

    Raises:
        InputError: fewer than two rows, a row is not finite, or the widths differ.
    """
    a, b = as_feature_pair(a, b, at_least=2)
    return frechet_of_moments(moments(a), moments(b))
