"""Law: with the exact denoiser every sampler reaches the mixture's mean, covariance and modes.

Bound: 5 standard errors of 6000 samples plus 1% of the scale for the discretisation; over the 11
figures of each case chance alone fails one case in 10^5.
"""

import itertools
import math

import pytest
import torch

from sciffusion.core import tables
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
    alphafold3,
)
from sciffusion.core.schedules import EDM, VE, VP, RectifiedFlow
from sciffusion.core.times import Karras

N = 6000
WORLDS = {
    "vp": (VP, None),
    "cosine": (tables.cosine, None),
    "zero_snr": (lambda: tables.zero_terminal_snr(tables.linear()), None),
    "edm": (EDM, Karras()),
    "ve": (VE, Karras()),
    "rf": (RectifiedFlow, None),
}
SAMPLERS = {
    "ddpm small": lambda grid: DDPM(200, grid),
    "ddpm large": lambda grid: DDPM(200, grid, variance="large"),
    "ddim 0": lambda grid: DDIM(150, grid),
    "ddim 0.5": lambda grid: DDIM(150, grid, eta=0.5),
    "ddim 1": lambda grid: DDIM(200, grid, eta=1.0),
    "euler": lambda grid: Euler(200, grid),
    "heun": lambda grid: Heun(40, grid),
    "dpmpp 2": lambda grid: DPMSolverPP(30),
    "dpmpp 3": lambda grid: DPMSolverPP(25, order=3),
    "sde dpmpp": lambda grid: SDEDPMSolverPP(50),
    "churn": lambda grid: Churn(50, noise_scale=1.0),
    "corrector": lambda grid: PredictorCorrector(150, grid, snr=0.05),
    "dopri": lambda grid: DormandPrince(),
}


def check_law(x, oracle, slack=0.01):
    """Mean, covariance and share of each mode's cell, within 5 standard errors + slack."""
    assert x.isfinite().all()
    x, weights, means = x.double(), oracle.log_weights.exp(), oracle.means
    mean = weights @ means
    apart = means - mean
    cov = torch.einsum("k,kij->ij", weights, oracle.covs + apart[:, :, None] * apart[:, None])
    std = cov.diagonal().sqrt()
    assert ((x.mean(0) - mean).abs() < 5 * std / len(x) ** 0.5 + slack * std).all()
    square = (x - mean)[:, :, None] * (x - mean)[:, None]
    error = square.std(0) / len(x) ** 0.5
    assert ((square.mean(0) - cov).abs() < 5 * error + slack * std[:, None] * std).all()
    # The cells' true shares, from 200,000 exact draws.
    cells = [torch.cdist(y, means).argmin(1) for y in (x, oracle.draw(200_000))]
    share, true = (torch.bincount(c, minlength=len(means)) / len(c) for c in cells)
    assert ((share - true).abs() < 5 * (true * (1 - true) / len(x)).sqrt() + slack).all()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("world", WORLDS)
def test_law(world, name, mixture):
    schedule, grid = WORLDS[world]
    oracle = mixture(schedule())
    # Plain Euler in VE's exponential time is crude: give it finer steps.
    sampler = Euler(1200, grid) if (world, name) == ("ve", "euler") else SAMPLERS[name](grid)
    out = sampler(oracle, (2,), n=N, seed=11)
    check_law(out.x, oracle)
    assert len(out.times) == sampler.steps + 1
    assert float(out.times[0]) == 1
    assert float(out.times[-1]) == 0


def test_learned_variance_between_its_bounds_keeps_the_law(mixture):
    """Any interpolation of the two fixed variances converges to the same law."""
    oracle = mixture(VP())
    plain = oracle.predict

    def predict(x_t, t, cond, state):
        pred = plain(x_t, t, cond, state)
        pred.log_var = torch.full_like(x_t, 0.5)
        return pred

    oracle.predict, oracle.learned_variance = predict, True
    check_law(DDPM(200, variance="learned")(oracle, (2,), n=N, seed=2).x, oracle)


def test_a_grid_that_goes_up_keeps_the_law(mixture):
    """RePaint's and restart's jumps back to more noise: the forward process is exact."""
    schedule = VP()
    oracle = mixture(schedule)
    down, again = torch.linspace(1, 0.1, 61), torch.linspace(0.5, 0, 61)
    for sampler in (DDIM(), DDPM(), DPMSolverPP()):
        out = sampler(oracle, (2,), n=N, seed=4, times=torch.cat([down, again]))
        check_law(out.x, oracle, slack=0.02)


@pytest.mark.parametrize("stop", [0.6, 0.2])
def test_a_grid_that_stops_early_has_the_marginal_law(stop):
    schedule = RectifiedFlow()
    oracle = gaussian(torch.tensor([1.0]), torch.tensor([[0.25]]), schedule)
    x = Heun()(oracle, (1,), n=N, times=torch.linspace(1, stop, 60)).x.double()
    var = (0.5 * (1 - stop)) ** 2 + stop**2
    assert abs(float(x.mean()) - (1 - stop)) < 5 * (var / N) ** 0.5
    assert abs(float(x.var()) / var - 1) < 5 * (2 / N) ** 0.5


def test_no_noise_is_left_in_the_last_step(schedule, mixture):
    """The step into sigma = 0 returns the denoised mean itself, whatever the sampler.

    The oracle always answers one point, so anything else in the sample would be left noise.
    """
    point = gaussian(torch.tensor([0.3, -0.2]), torch.zeros(2, 2), schedule)
    for make in SAMPLERS.values():
        x = make(None)(point, (2,), n=5, times=torch.tensor([1.0, 0.6, 0.3, 0.1, 0.0])).x
        assert (x - torch.tensor([0.3, -0.2])).abs().max() < 2e-3, make(None)


def alphafold3_recursion(steps, sigma_data, noise_scale, step_scale, gamma=0.8):
    """Alg. 18 on N(0, sigma_data^2) data, where D(x) = x sd^2/(sd^2 + s^2): variances only."""
    s_max, s_min, rho = 160 * sigma_data, 4e-4 * sigma_data, 7
    levels = [
        (s_max ** (1 / rho) + i / (steps - 1) * (s_min ** (1 / rho) - s_max ** (1 / rho))) ** rho
        for i in range(steps)
    ] + [0.0]
    var = levels[0] ** 2
    for before, after in itertools.pairwise(levels):
        high = before * (1 + (gamma if after > 1 else 0))
        var += noise_scale**2 * (high**2 - before**2)
        slope = high / (sigma_data**2 + high**2)  # (x - D(x)) / high, of x
        var *= (1 + step_scale * (after - high) * slope) ** 2
    return math.sqrt(var) / sigma_data


def test_alphafold3_follows_its_own_recursion():
    sd, n = 16.0, 40_000
    oracle = gaussian(torch.zeros(1), torch.tensor([[sd**2]]), EDM(160 * sd))
    ours = alphafold3()
    assert ours(oracle, (1,), n=n, seed=1).x.std() / sd == pytest.approx(
        alphafold3_recursion(200, sd, 1.003, 1.5), rel=5 / (2 * n) ** 0.5
    )
    # The preset's narrowing (.685), and that which the churn alone leaves at step scale 1 (.868).
    assert alphafold3_recursion(200, sd, 1.003, 1.5) == pytest.approx(0.685, abs=6e-4)
    assert alphafold3_recursion(200, sd, 1.003, 1.0) == pytest.approx(0.868, abs=6e-4)
    ours.step_scale = 1.0
    assert ours(oracle, (1,), n=n, seed=1).x.std() / sd == pytest.approx(0.868, rel=0.02)


def test_alphafold3_without_churn_and_scales_keeps_the_law(mixture):
    oracle = mixture(EDM(160))
    sampler = alphafold3(400, sigma_data=1.0)
    sampler.gamma, sampler.noise_scale, sampler.step_scale = 0.0, 1.0, 1.0
    check_law(sampler(oracle, (2,), n=N, seed=6).x, oracle, slack=0.02)
