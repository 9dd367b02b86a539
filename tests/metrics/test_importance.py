"""Importance weights on Gaussians, where everything is known."""

import numpy as np
import pytest

from sciffusion.errors import InputError
from sciffusion.metrics.importance import (
    effective_sample_size,
    normalised,
    truncated,
    weighted_mean,
)


@pytest.fixture
def gaussians():
    """(x of N(0, 1), log-weights to N(0.5, 1) up to a constant)."""
    x = np.random.default_rng(0).standard_normal(20_000)
    return x, 0.5 * x + 700.0


def test_a_shifted_gaussian(gaussians):
    """ESS / n is exp(-shift^2), the mean is the shift."""
    x, log_w = gaussians
    assert effective_sample_size(log_w) / len(x) == pytest.approx(np.exp(-0.25), rel=0.03)
    found = weighted_mean(x, log_w)
    assert found.low < 0.5 < found.high
    assert found.value == pytest.approx(0.5, abs=0.03)


def test_ends():
    assert effective_sample_size(np.full(7, -1e4)) == pytest.approx(7)
    assert effective_sample_size(np.array([0.0, -np.inf, np.nan])) == pytest.approx(1)
    np.testing.assert_array_equal(normalised(np.array([0.0, np.nan])), [1, 0])
    assert weighted_mean(np.array([2.0, np.nan]), np.array([0.0, np.nan])).value == 2
    with pytest.raises(InputError, match="no sample"):
        effective_sample_size(np.array([np.nan, -np.inf]))


def test_truncated_weights_raise_the_effective_size(gaussians):
    log_w = np.append(gaussians[1], gaussians[1].max() + 8)
    assert effective_sample_size(log_w) < 5
    assert effective_sample_size(truncated(log_w)) > 100
    np.testing.assert_array_equal(truncated(np.zeros(5)), np.zeros(5))
