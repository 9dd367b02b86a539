"""Power-function profiles: their lengths, their sums step by step, and averages made of others."""

import math

import pytest
import torch
from torch import nn

from sciffusion.core.ema import PowerEMA
from sciffusion.core.profiles import (
    LONGEST,
    combine,
    covariance,
    gamma_of_length,
    length_of_gamma,
)


def densities(gamma, step, bins=200_000):
    """(midpoints, probability of each bin) of a profile, by quadrature."""
    edges = torch.linspace(0, step, bins + 1, dtype=torch.float64)
    mass = (edges / step).pow(gamma + 1).diff()
    return (edges[1:] + edges[:-1]) / 2, mass


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_the_length_is_the_relative_standard_deviation(length):
    gamma = gamma_of_length(length)
    place, mass = densities(gamma, 7.0)
    mean = (place * mass).sum()
    deviation = ((place - mean) ** 2 * mass).sum().sqrt()
    assert float(deviation) / 7 == pytest.approx(length, rel=1e-4)
    assert length_of_gamma(gamma) == pytest.approx(length, rel=1e-12)


def test_published_exponents():
    """Karras et al. 2024: lengths 0.05 and 0.10 are exponents 16.97 and 6.94."""
    assert gamma_of_length(0.05) == pytest.approx(16.97, abs=0.005)
    assert gamma_of_length(0.10) == pytest.approx(6.94, abs=0.005)
    assert gamma_of_length(LONGEST) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.3, math.nan])
def test_lengths_that_no_profile_has(length):
    with pytest.raises(ValueError, match=r"0\.2887"):
        gamma_of_length(length)


def test_the_average_weighs_steps_by_the_profile():
    """Step k counts by the share of the profile between k - 1 and k; the initial weights by 0."""
    steps, module = 50, nn.Linear(50, 1, bias=False).double()
    nn.init.constant_(module.weight, 1e9)
    average = PowerEMA(module, 0.12)
    for k in range(steps):
        with torch.no_grad():
            module.weight.copy_(torch.eye(steps)[k : k + 1])  # a unit vector for each step
        average.update(module)
    share = (torch.arange(steps + 1, dtype=torch.float64) / steps) ** (average.gamma + 1)
    torch.testing.assert_close(average.shadow["weight"][0], share.diff(), rtol=1e-10, atol=1e-14)


def test_covariance_is_that_of_averages_of_a_random_walk():
    """By quadrature of (1 - F_a)(1 - F_b)."""
    grid = torch.linspace(0, 12, 400_001, dtype=torch.float64)
    for step_a, gamma_a, step_b, gamma_b in ((12, 7, 5, 17), (5, 0.5, 5, 3), (3, 17, 12, 7)):
        tails = [
            1 - (grid / step).clamp(max=1) ** (gamma + 1)
            for step, gamma in ((step_a, gamma_a), (step_b, gamma_b))
        ]
        value = torch.trapezoid(tails[0] * tails[1], grid)
        parts = (torch.tensor(float(v)).double() for v in (step_a, gamma_a, step_b, gamma_b))
        assert float(covariance(*parts)) == pytest.approx(float(value), rel=1e-6)


def stored(number, steps=4096, lengths=(0.05, 0.1)):
    t = (torch.arange(1, number + 1, dtype=torch.float64) * steps / number).round()
    gammas = torch.tensor([gamma_of_length(v) for v in lengths], dtype=torch.float64)
    return t.repeat(len(lengths)), gammas.repeat_interleave(number)


def test_a_stored_average_comes_back_alone():
    steps, gammas = stored(16)
    for k in (3, 31):
        made = combine(steps, gammas, float(steps[k]), float(gammas[k]))
        torch.testing.assert_close(made.weights, torch.eye(32)[k].double(), rtol=0, atol=1e-5)
        assert made.error < 1e-6


@pytest.mark.parametrize("length", [0.03, 0.07, 0.15, 0.2])
def test_weights_sum_to_one_and_more_snapshots_are_better(length):
    errors = []
    for number in (8, 16, 32, 64, 128):
        made = combine(*stored(number), 4096, gamma_of_length(length))
        assert float(made.weights.sum()) == pytest.approx(1, abs=1e-9)
        errors.append(made.error)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-2 * errors[0]


def test_rounding_keeps_weights_small():
    """What half precision loses is weighed against what large weights would win."""
    full, half = (combine(*stored(128), 4096, gamma_of_length(0.03), 2.0**-k) for k in (24, 11))
    assert half.weights.norm() < 0.5 * full.weights.norm()


def test_nothing_to_combine_is_refused():
    with pytest.raises(ValueError, match="steps"):
        combine(torch.zeros(0), torch.zeros(0), 10, 7.0)
    with pytest.raises(ValueError, match="steps"):
        combine(torch.zeros(1), torch.ones(1), 10, 7.0)
