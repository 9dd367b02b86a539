"""Weights make a wrong law right: a Gaussian network on springs, where all is known."""

import numpy as np
import pytest
import torch

from sciffusion.core.analytic import GaussianMixture
from sciffusion.core.likelihood import ProbabilityFlow
from sciffusion.core.schedules import RectifiedFlow
from sciffusion.core.spaces import ZeroCoM
from sciffusion.domains.molecule.boltzmann import propose, reweighted
from sciffusion.domains.molecule.chem import from_smiles
from sciffusion.domains.molecule.langevin import BOLTZMANN
from sciffusion.errors import InputError
from sciffusion.metrics.importance import effective_sample_size, weighted_mean

WATER, T, VAR = from_smiles("O"), 300.0, 0.04


def network(var):
    """Centred clouds of three points, each coordinate of this variance."""
    centring = torch.kron(torch.eye(3) - 1 / 3, torch.eye(3)).double()
    mean = torch.zeros(1, 9)
    return GaussianMixture(
        mean, var * centring[None], RectifiedFlow(), noise_cov=centring, space=ZeroCoM()
    )


def energy(coords):
    """Springs whose ensemble has the variance VAR."""
    return 0.5 * BOLTZMANN * T / VAR * (coords.astype(float) ** 2).sum((1, 2))


def test_the_right_law_weighs_all_alike():
    drawn = propose(ProbabilityFlow(network(VAR)), WATER, 30)
    log_w = reweighted(drawn, energy(drawn.coords), T)
    assert log_w.std() < 1e-3
    exact = -3 * np.log(2 * np.pi * VAR) - 0.5 * (drawn.coords.astype(float) ** 2).sum((1, 2)) / VAR
    np.testing.assert_allclose(drawn.log_q, exact, atol=1e-3)  # 6 degrees of freedom


def test_a_law_too_wide_is_mended():
    """ESS / n of variance r VAR against VAR over 6 dimensions is (2 r - 1)^3 / r^6."""
    ratio = 1.5
    drawn = propose(ProbabilityFlow(network(ratio * VAR), rtol=1e-4, atol=1e-4), WATER, 1500)
    log_w = reweighted(drawn, energy(drawn.coords), T)
    share = effective_sample_size(log_w) / 1500
    assert share == pytest.approx((2 * ratio - 1) ** 3 / ratio**6, rel=0.1)
    mean = weighted_mean(energy(drawn.coords) / (BOLTZMANN * T), log_w)
    assert mean.low - 0.1 < 3 < mean.high + 0.1


def test_a_draw_does_not_depend_on_its_batch():
    flow = ProbabilityFlow(network(VAR))
    whole, pieces = (propose(flow, WATER, 5, 3, most_atoms=m) for m in (1000, 6))
    np.testing.assert_allclose(whole.coords, pieces.coords, atol=1e-5)
    np.testing.assert_allclose(whole.log_q, pieces.log_q, atol=1e-4)
    with pytest.raises(InputError, match="temperature"):
        reweighted(whole, whole.log_q, 0.0)
