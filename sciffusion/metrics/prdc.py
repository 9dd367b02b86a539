"""Precision, recall, density and coverage: fidelity and variety apart.

Each set is stood for by balls about its points, as wide as the distance to the k-th neighbour.
Precision and recall (Kynkaanniemi et al. 2019, arXiv:1904.06991) ask how many points of one set
lie in a ball of the other; density counts the real balls about a sample, and coverage the real
balls that hold a sample (Naeem et al. 2020, arXiv:2002.09797). For equal laws density is 1 on
average, and coverage near 1 - 1/2^k when the sets are of one size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from sciffusion.errors import InputError
from sciffusion.metrics.checks import as_feature_pair
from sciffusion.metrics.distances import kth_neighbour_squared, squared_distance_blocks


@dataclass(frozen=True)
class PRDC:
    """The four measures point by point; each figure is the mean of its array.

    Args:
        in_real: (n,), the sample lies in some ball of the real set; precision.
        in_fake: (m,), the real point lies in some ball of the samples; recall.
        per_sample: (n,), real balls about the sample, over k; density.
        covered: (m,), the real point's ball holds a sample; coverage.
    """

    in_real: Bool[np.ndarray, " n"]
    in_fake: Bool[np.ndarray, " m"]
    per_sample: Float[np.ndarray, " n"]
    covered: Bool[np.ndarray, " m"]

    @property
    def precision(self) -> float:
        """Share of samples that look real."""
        return float(self.in_real.mean())

    @property
    def recall(self) -> float:
        """Share of real points within reach of the samples; one outlying sample inflates it."""
        return float(self.in_fake.mean())

    @property
    def density(self) -> float:
        """How thickly real points lie about samples; may exceed 1, outliers count little."""
        return float(self.per_sample.mean())

    @property
    def coverage(self) -> float:
        """Share of real points with a sample in their neighbourhood."""
        return float(self.covered.mean())


def prdc(real: Shaped[np.ndarray, "m d"], fake: Shaped[np.ndarray, "n d"], k: int = 5) -> PRDC:
    """The four measures of `fake` against `real`, in blocks of bounded memory.

    Args:
        real: (M, D) features of real data.
        fake: (N, D) features of samples.
        k: which neighbour sets a ball's radius.

    Raises:
        InputError: k < 1, a set has k rows or fewer, a row is not finite, or the widths differ.
    """
    if k < 1:
        raise InputError(f"k = {k}: a ball needs at least its first neighbour; choose k >= 1")
    real, fake = as_feature_pair(real, fake, at_least=k + 1)
    real_radius, fake_radius = kth_neighbour_squared(real, k), kth_neighbour_squared(fake, k)
    in_fake = np.zeros(len(real), dtype=bool)
    covered = np.zeros(len(real), dtype=bool)
    balls = np.empty(len(fake))
    for rows, squared in squared_distance_blocks(fake, real):
        in_real_ball = squared <= real_radius
        balls[rows] = in_real_ball.sum(1)
        covered |= in_real_ball.any(0)
        in_fake |= (squared <= fake_radius[rows, None]).any(0)
    return PRDC(balls > 0, in_fake, balls / k, covered)
