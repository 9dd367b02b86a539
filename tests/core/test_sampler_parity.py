"""Parity with diffusers, step by step in float64, with one nonlinear network and the same noises.

diffusers counts timesteps from 0, so its timestep i is our t = (i + 1) / T.
"""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
)

from sciffusion.core import tables
from sciffusion.core.denoiser import FunctionDenoiser, NetworkDenoiser
from sciffusion.core.parameterization import Eps
from sciffusion.core.samplers import DDIM, DDPM, DPMSolverPP, Heun
from sciffusion.core.schedules import EDM
from sciffusion.core.spaces import Euclidean
from sciffusion.core.times import Trailing, UniformGrid

T = 1000
SHAPE = (3, 4)


class Network(torch.nn.Module):
    """Noise as a nonlinear function of x_t, the same for both libraries."""

    def forward(self, x, log_snr, cond):
        return torch.tanh(1.3 * x) + 0.2 * (x * 2).sin() - 0.1


class Recorded(Euclidean):
    """Hands out a list of noises, the one that the other library is given."""

    def __init__(self, noises):
        self.noises = iter(noises)

    def noise(self, rng, purpose, shape, cond=None, dtype=torch.float64):
        return next(self.noises)


@pytest.fixture
def x():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def float64(scheduler):
    """diffusers keeps its tables in float32: give them the same linear betas in float64."""
    scheduler.betas = torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    scheduler.one = torch.ones((), dtype=torch.float64)
    return scheduler


def denoiser(noises=()):
    return NetworkDenoiser(Network(), tables.linear(), Eps(), Recorded(noises))


def grid(timesteps):
    return torch.cat([(timesteps.double() + 1) / T, torch.zeros(1, dtype=torch.float64)])


def close(ours, theirs, tolerance):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert float((a - b).abs().max()) < tolerance * float(b.abs().max().clamp_min(1))


@pytest.mark.parametrize(("kind", "ours"), [("fixed_small", "small"), ("fixed_large", "large")])
def test_ddpm(kind, ours, x, monkeypatch):
    scheduler = float64(DDPMScheduler(T, clip_sample=False, variance_type=kind))
    noises = list(torch.randn(T, *SHAPE, dtype=torch.float64))
    feed = iter(noises)
    target = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
    monkeypatch.setattr(target, lambda *args, **kwargs: next(feed))
    times = grid(scheduler.timesteps)
    run = DDPM(T, variance=ours)(
        denoiser(noises), SHAPE[1:], n=3, x=x, times=times, dtype=torch.float64, trajectory=True
    )
    theirs = [x]
    for t in scheduler.timesteps:
        eps = Network()(theirs[-1], None, None)
        theirs.append(scheduler.step(eps, t, theirs[-1]).prev_sample)
    close(run.trajectory, theirs, 1e-10)


@pytest.mark.parametrize("steps", [10, 50, 1000])
def test_ddim(steps, x):
    scheduler = float64(DDIMScheduler(T, clip_sample=False, timestep_spacing="trailing"))
    scheduler.set_timesteps(steps)
    run = DDIM(steps)(denoiser(), SHAPE[1:], n=3, x=x, dtype=torch.float64, trajectory=True)
    assert (run.times[:-1] * T - 1).round().long().tolist() == scheduler.timesteps.tolist()
    theirs = [x]
    for t in scheduler.timesteps:
        eps = Network()(theirs[-1], None, None)
        theirs.append(scheduler.step(eps, t, theirs[-1]).prev_sample)
    close(run.trajectory, theirs, 1e-10)


def test_dpmpp_2m(x):
    scheduler = float64(
        DPMSolverMultistepScheduler(
            T, solver_order=2, final_sigmas_type="zero", timestep_spacing="trailing"
        )
    )
    scheduler.set_timesteps(20)
    index = scheduler.timesteps
    ab = scheduler.alphas_cumprod[index]
    zero = torch.zeros(1, dtype=torch.float64)
    scheduler.sigmas = torch.cat([((1 - ab) / ab).sqrt(), zero])
    run = DPMSolverPP(20)(
        denoiser(), SHAPE[1:], n=3, x=x, times=grid(index), dtype=torch.float64, trajectory=True
    )
    theirs = [x]
    for t in index:
        eps = Network()(theirs[-1], None, None)
        theirs.append(scheduler.step(eps, t, theirs[-1]).prev_sample)
    # Their step rounds the sample to float32, whatever it is given.
    close(run.trajectory, theirs, 1e-6)


def test_heun_on_karras_sigmas(x):
    """Theirs walks sigma over alpha in float32 tables; our EDM schedule walks the same sigmas."""
    scheduler = float64(HeunDiscreteScheduler(T, use_karras_sigmas=True))
    scheduler.set_timesteps(12)
    sigmas = scheduler.sigmas.double()
    levels = torch.cat([sigmas[:1], sigmas[1::2]])  # every inner level stands twice in their list
    levels = levels[torch.cat([torch.ones(1, dtype=torch.bool), levels.diff() < 0])]
    schedule = EDM(float(levels[0]))

    def x0(y, t, cond):
        sigma = schedule.sigma(t).to(y)
        return y - sigma * Network()(y / (sigma**2 + 1).sqrt(), None, None)

    run = Heun(12)(
        FunctionDenoiser(x0, schedule),
        SHAPE[1:],
        n=3,
        x=x * levels[0],
        times=levels / levels[0],
        dtype=torch.float64,
        trajectory=True,
    )
    y, theirs = x * levels[0], [x * levels[0]]
    for i, t in enumerate(scheduler.timesteps):
        eps = Network()(scheduler.scale_model_input(y, t), None, None)
        y = scheduler.step(eps, t, y).prev_sample
        if i % 2 == 1 or i == len(scheduler.timesteps) - 1:
            theirs.append(y)
    close(run.trajectory, theirs, 1e-5)


@pytest.mark.parametrize("steps", [30, 37, 300])
def test_steps_that_do_not_divide_the_table_still_end_at_the_data(steps, x):
    """An oracle that knows x0 makes every DDIM step exact, if it steps to the level it says.

    Theirs steps from each of its timesteps to `t - T // N`, which is not its next timestep: the
    error is of the size of the data. Ours ends at x0 from any grid.
    """
    schedule = tables.linear()
    x0 = 1.5 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = x * schedule.sigma(torch.ones((), dtype=torch.float64))
    start = schedule.alpha(torch.ones((), dtype=torch.float64)) * x0 + noise

    for level in (UniformGrid(), Trailing(T)):
        seen = []

        def oracle(y, t, cond, seen=seen):
            seen.append(y - schedule.alpha(t) * x0 - schedule.sigma(t) * x)
            return x0

        model = FunctionDenoiser(oracle, schedule)
        ours = DDIM(steps, level)(model, SHAPE[1:], n=3, x=start, dtype=torch.float64).x
        assert float((ours - x0).abs().max()) < 1e-12
        # All along the way too, x_t lies where its level says.
        assert max(float(s.abs().max()) for s in seen) < 1e-10

    scheduler = float64(DDIMScheduler(T, clip_sample=False, timestep_spacing="trailing"))
    scheduler.set_timesteps(steps)
    off = []
    y = start
    for t in scheduler.timesteps:
        ab = scheduler.alphas_cumprod[t]
        off.append(float((y - ab.sqrt() * x0 - (1 - ab).sqrt() * x).abs().max()))
        y = scheduler.step((y - ab.sqrt() * x0) / (1 - ab).sqrt(), t, y).prev_sample
    assert max(off) > 1e-3
