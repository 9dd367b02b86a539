"""Importance sampling: averages under one law from samples of another.

With weights w_i = p(x_i) / q(x_i), both up to a constant, the average of f under p is
sum w f / sum w. Everything is done on log-weights: energies over kT span hundreds.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from sciffusion.errors import InputError
from sciffusion.metrics.bootstrap import Interval, bootstrap_interval

LogWeights = Float[np.ndarray, " n"]


def checked(log_w: LogWeights) -> LogWeights:
    """Log-weights with NaN (no density, no energy) counted as no weight at all.

    Raises:
        InputError: none has any weight, or one has infinitely much.
    """
    log_w = np.where(np.isnan(log_w), -np.inf, np.asarray(log_w, np.float64))
    if not np.isfinite(log_w).any() or (log_w == np.inf).any():
        raise InputError("importance weights: no sample has a finite weight above zero")
    return log_w


def normalised(log_w: LogWeights) -> Float[np.ndarray, " n"]:
    """Weights that sum to one."""
    log_w = checked(log_w)
    return np.exp(log_w - logsumexp(log_w))


def effective_sample_size(log_w: LogWeights) -> float:
    """Kish's (sum w)^2 / sum w^2: from 1, one sample has all the weight, to n, all weigh alike."""
    log_w = checked(log_w)
    return float(np.exp(2 * logsumexp(log_w) - logsumexp(2 * log_w)))


def truncated(log_w: LogWeights) -> LogWeights:
    """Log-weights cut at the mean weight times sqrt(n): less variance for a bias that vanishes
    with n (Ionides 2008, eq. 3)."""
    log_w = checked(log_w)
    return np.minimum(log_w, logsumexp(log_w) - 0.5 * np.log(len(log_w)))


def weighted_mean(
    values: Float[np.ndarray, " n"], log_w: LogWeights, resamples: int = 200, seed: int = 0
) -> Interval:
    """The average under the target with its 95% bootstrap interval.

    Where few samples carry the weight the interval is too narrow: look at the effective sample
    size first.
    """
    weight = normalised(log_w)
    # A value where there is no weight may be anything, NaN too
    product = np.where(weight > 0, weight * np.where(weight > 0, values, 0.0), 0.0)

    def mean(rows: np.ndarray) -> float:
        total = weight[rows].sum()
        return float(product[rows].sum() / total) if total > 0 else float(values[rows].mean())

    return bootstrap_interval(mean, len(weight), resamples, seed=seed)
