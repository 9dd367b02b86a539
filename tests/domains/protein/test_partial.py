"""Partial diffusion: how much noise, which way, and where the result lies."""

import numpy as np
import pytest
import torch
from support.backbones import made

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import FunctionDenoiser
from sciffusion.core.samplers import Euler, Heun
from sciffusion.core.schedules import EDM, VE, VP, RectifiedFlow
from sciffusion.core.spaces import ZeroCoM
from sciffusion.domains.protein.partial import laid_on, noised, rest_of_way, rmsd, time_of
from sciffusion.errors import InputError

SCHEDULES = [EDM(160.0), VE(), VP(), RectifiedFlow()]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_noise_is_in_angstrom_under_any_schedule(schedule):
    """x / alpha lies off x0 by the noise asked for, on every coordinate."""
    denoiser = FunctionDenoiser(lambda x, t, cond: x, schedule, ZeroCoM())
    x0 = torch.from_numpy(made(50).coords).double().expand(40, -1, -1, -1)
    t = time_of(3.0, schedule)
    x = noised(x0, t, denoiser, Cond(), 0, torch.arange(40))
    off = x / schedule.alpha(t) - x0
    assert off.square().mean().sqrt() == pytest.approx(3.0, rel=0.02)
    assert off.mean((1, 2)).abs().max() < 1e-5  # the centre stays
    alone = noised(x0[:1], t, denoiser, Cond(), 0, torch.tensor([7]))
    torch.testing.assert_close(alone[0], x[7])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("sampler", [Euler(20), Heun(7)], ids=["euler", "heun"])
def test_what_is_left_of_the_way(schedule, sampler):
    grid = sampler.grid(sampler.steps, schedule)
    for noise in (1e-3, 0.5, 20.0):
        t = time_of(noise, schedule)
        way = rest_of_way(t, sampler, schedule)
        assert way[0] == t
        assert way[-1] == 0
        assert bool((way[1:] < way[:-1]).all())
        assert set(way[1:].tolist()) <= set(grid.tolist())
    torch.testing.assert_close(rest_of_way(grid[0] + 1, sampler, schedule)[1:], grid)


def test_noise_beyond_the_way():
    for noise in (0.0, -1.0, 161.0, float("inf")):
        with pytest.raises(InputError, match="at most 160 Angstrom"):
            time_of(noise, EDM(160.0))
    assert float(time_of(160.0, EDM(160.0))) == pytest.approx(1)


def test_a_moved_structure_is_laid_back():
    rng = np.random.default_rng(0)
    one, other = made(30, seed=1), made(30, seed=2)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    moved = type(one)(**{**vars(one), "coords": one.coords @ turn.T + [10.0, -4.0, 7.0]})
    np.testing.assert_allclose(laid_on(moved, one), one.coords, atol=1e-4)
    assert rmsd(moved, one) < 1e-4
    assert rmsd(moved, other) == pytest.approx(rmsd(one, other), abs=1e-6)
    mirror = type(one)(**{**vars(one), "coords": one.coords * [1, 1, -1]})
    assert rmsd(mirror, one) > 0.5  # never reflected
