"""One two-dimensional world with known law, shared by the tests of the core."""

import os

import pytest
import torch

from sciffusion.core import tables
from sciffusion.core.analytic import GaussianMixture
from sciffusion.core.schedules import EDM, VE, VP, RectifiedFlow

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))

SCHEDULES = {
    "vp": VP,
    "ve": VE,
    "edm": EDM,
    "rf": RectifiedFlow,
    "linear": tables.linear,
    "cosine": tables.cosine,
    "scaled_linear": tables.scaled_linear,
    "sigmoid": tables.sigmoid,
    "linear100": lambda: tables.linear(100),
    "zero_snr": lambda: tables.zero_terminal_snr(tables.linear()),
}


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param]()


@pytest.fixture
def mixture():
    """schedule -> three Gaussians of uneven weights and different covariances."""
    weights = torch.tensor([0.2, 0.3, 0.5])
    means = torch.tensor([[-2.0, -1.0], [1.5, 1.5], [1.0, -2.0]])
    covs = torch.tensor(
        [[[0.2, 0.1], [0.1, 0.3]], [[0.1, 0.0], [0.0, 0.4]], [[0.3, -0.15], [-0.15, 0.2]]]
    )
    return lambda schedule: GaussianMixture(means, covs, schedule, weights)
