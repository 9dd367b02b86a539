"""Order: the measured convergence order is the declared one, in float64, between finite log-SNRs.

A Gaussian's posterior mean is linear, so a sampler is an affine map of its start and its noises. A
space whose n-th draw is the n-th basis vector gives that map column by column, with no statistics.
"""

import math

import pytest
import torch

from sciffusion.core.analytic import gaussian
from sciffusion.core.samplers import (
    DDIM,
    DDPM,
    Churn,
    DormandPrince,
    DPMSolverPP,
    Euler,
    Heun,
    PredictorCorrector,
    SDEDPMSolverPP,
)
from sciffusion.core.schedules import EDM, VP, RectifiedFlow
from sciffusion.core.spaces import Euclidean

HIGH, LOW = -3.0, 5.0  # log-SNR at the two ends
MEAN, STD = 0.7, 0.5
SCHEDULES = {"vp": VP, "rf": RectifiedFlow, "edm": EDM}
DETERMINISTIC = {
    "ddim": DDIM,
    "euler": Euler,
    "heun": Heun,
    "dpmpp 1": lambda n: DPMSolverPP(n, order=1),
    "dpmpp 2": DPMSolverPP,
    "dpmpp 3": lambda n: DPMSolverPP(n, order=3),
}
ALWAYS = {"noise_scale": 1.0, "s_churn": 4.0, "s_min": 0.0, "s_max": math.inf}
STOCHASTIC = {
    "ddpm small": DDPM,
    "ddpm large": lambda n: DDPM(n, variance="large"),
    "ddim 0.5": lambda n: DDIM(n, eta=0.5),
    "ddim 1": lambda n: DDIM(n, eta=1.0),
    "sde dpmpp": SDEDPMSolverPP,
    "churn heun": lambda n: Churn(n, **ALWAYS),
    "churn euler": lambda n: Churn(n, heun=False, **ALWAYS),
    # Its bias is of order snr^2, so the order is measured with snr^2 ~ 1/n.
    "corrector": lambda n: PredictorCorrector(n, snr=0.5 * n**-0.5),
}


class Basis(Euclidean):
    """The n-th draw of noise is 1 in row n + 1 and 0 elsewhere."""

    def __init__(self):
        self.row = 1

    def noise(self, rng, purpose, shape, cond=None, dtype=torch.float64):
        self.row += 1
        z = torch.zeros(len(rng.index), *shape, dtype=dtype)
        z[self.row] = 1
        return z


def grid(schedule, n, bend=0.0):
    """Log-SNR from HIGH to LOW, evenly or with steps that grow and shrink."""
    u = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    u = u + bend * (2 * math.pi * u).sin() / (2 * math.pi)
    return schedule.t_of_log_snr(HIGH + (LOW - HIGH) * u)


def slope(errors):
    """Order from the last two halvings of the step."""
    return 0.5 * math.log2(errors[-3] / errors[-1])


def oracle(schedule):
    one = torch.ones(1, dtype=torch.float64)
    return gaussian(MEAN * one, STD**2 * one[:, None], schedule)


def variance_error(sampler, schedule, n, bend):
    """|variance - the truth| / the truth at the end, started from the exact law at the start."""
    denoiser = oracle(schedule)
    denoiser.space = Basis()
    t = grid(schedule, n, bend)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    var = (alpha * STD) ** 2 + sigma**2
    x = (alpha[0] * MEAN).repeat(3 + 2 * n)[:, None]
    x[1] += var[0].sqrt()
    out = sampler(denoiser, (1,), n=len(x), x=x, times=t, dtype=torch.float64).x[:, 0]
    assert float((out[0] - alpha[-1] * MEAN).abs()) < 1e-12  # the mean is carried exactly
    return float(((out - out[0]) ** 2).sum() / var[-1] - 1)


@pytest.mark.parametrize("bend", [0.0, 0.5])
@pytest.mark.parametrize("name", STOCHASTIC)
@pytest.mark.parametrize("world", SCHEDULES)
def test_weak_order(world, name, bend):
    make = STOCHASTIC[name]
    errors = [abs(variance_error(make(n), SCHEDULES[world](), n, bend)) for n in (40, 80, 160)]
    assert make(8).stochastic
    assert slope(errors) == pytest.approx(make(8).order, abs=0.15)


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("world", SCHEDULES)
def test_order(world, name, mixture):
    """On the mixture, against an adaptive reference."""
    schedule, make = SCHEDULES[world](), DETERMINISTIC[name]
    denoiser = mixture(schedule)
    start = grid(schedule, 1)
    sigma = float(schedule.sigma(start[0]))
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x * (sigma**2 + 4 * float(schedule.alpha(start[0])) ** 2) ** 0.5
    run = {"shape": (2,), "n": 6, "x": x, "dtype": torch.float64}
    exact = DormandPrince(rtol=1e-11, atol=1e-11)(denoiser, times=start, **run).x
    errors = []
    for n in (120, 240, 480):
        out = make(n)(denoiser, times=grid(schedule, n), **run)
        errors.append(float((out.x - exact).norm()))
    assert not make(8).stochastic
    assert slope(errors) == pytest.approx(make(8).order, abs=0.25)


def dopri_error(schedule, times, tol):
    """Against the ODE of a Gaussian, which is solved by x = mean + std(t) * constant."""
    ends = times[[0, -1]]
    alpha = schedule.alpha(ends)
    std = ((alpha * STD) ** 2 + schedule.sigma(ends) ** 2).sqrt()
    z = torch.tensor([[-1.3], [0.2], [2.0]], dtype=torch.float64)
    x = alpha[0] * MEAN + std[0] * z
    sampler = DormandPrince(rtol=tol, atol=tol)
    out = sampler(oracle(schedule), (1,), n=3, x=x, times=times, dtype=torch.float64)
    return float((out.x - alpha[1] * MEAN - std[1] * z).abs().max())


@pytest.mark.parametrize("world", SCHEDULES)
def test_dopri_order(world):
    """Without a bound on the error a step of the grid is cut in fixed shares: plain order five."""
    schedule = SCHEDULES[world]()
    errors = [dopri_error(schedule, grid(schedule, n), 1e9) for n in (8, 16, 32)]
    assert slope(errors) == pytest.approx(DormandPrince.order, abs=0.4)


@pytest.mark.parametrize("tol", [1e-4, 1e-7, 1e-10])
@pytest.mark.parametrize("world", SCHEDULES)
def test_dopri_reaches_its_tolerance(world, tol):
    schedule = SCHEDULES[world]()
    assert dopri_error(schedule, grid(schedule, 1), tol) < 50 * tol


@pytest.mark.parametrize(("make", "steps", "nfe"), [(Heun, 10, 19), (DDIM, 10, 10), (Churn, 9, 17)])
def test_network_calls_are_counted(make, steps, nfe):
    assert make(steps)(oracle(EDM()), (1,), n=2).nfe == nfe
