"""Editing: what is kept is kept exactly, SDEdit's law, RePaint's way, the latent's round trip."""

import itertools

import pytest
import torch

from sciffusion.core.analytic import gaussian
from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import FunctionDenoiser
from sciffusion.core.editing import (
    Replacement,
    noised,
    resampled,
    rest_of_way,
    time_of_level,
)
from sciffusion.core.geometry import kabsch, random_rotations
from sciffusion.core.latent import interpolate, slerp
from sciffusion.core.likelihood import ProbabilityFlow, round_trip
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import DDIM, DDPM, Churn, DormandPrince, DPMSolverPP, Heun
from sciffusion.core.schedules import EDM, VE, VP, RectifiedFlow
from sciffusion.core.spaces import Euclidean, Harmonic, ZeroCoM
from sciffusion.core.times import Karras

SAMPLERS = {
    "ddpm": DDPM(20),
    "ddim": DDIM(10),
    "dpmpp": DPMSolverPP(10),
    "heun": Heun(10),
    "churn": Churn(10),
    "dopri": DormandPrince(),
}
COV = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("make", [VP, VE, RectifiedFlow])
def test_what_is_known_comes_back_exactly(name, make, mixture):
    kept = Replacement(mixture(make()), torch.tensor([[0.7, 0.0]]), torch.tensor([[True, False]]))
    x = SAMPLERS[name](kept, (2,), n=20).x
    assert (x[:, 0] - 0.7).abs().max() < 1e-4
    assert x[:, 1].std() > 0.1


def test_resampling_brings_replacement_to_the_conditional():
    """x1 | x0 of a Gaussian: plain replacement has too wide a law, RePaint's is near."""
    schedule = VP()
    prior = gaussian(torch.zeros(2), COV, schedule)
    kept = Replacement(prior, torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]]))
    sampler, off = DDPM(50), {}
    for times in (1, 10):
        way = resampled(sampler.grid(50, schedule), times, 5)
        x = sampler(kept, (2,), n=2000, times=way).x[:, 1]
        off[times] = (abs(float(x.mean()) - 0.8), abs(float(x.std()) - 0.6))
    assert off[1][0] > 0.2, off
    assert off[10][0] < 0.1, off
    assert off[10][1] < off[1][1], off


def test_the_way_of_resampling():
    grid = torch.linspace(1, 0, 7)
    way = resampled(grid, 2, 3)
    steps = list(itertools.pairwise(way.tolist()))
    ups = [(a, b) for a, b in steps if b > a]
    assert ups == [(0.5, 1.0), (0.0, 0.5)]
    assert len(way) == 1 + 2 * 6 + 2
    assert torch.equal(resampled(grid, 1, 4), grid)
    with pytest.raises(ValueError, match="at least 1"):
        resampled(grid, 0, 3)


@pytest.mark.parametrize("shape", [(6, 3), (6, 4, 3)])
def test_points_are_kept_up_to_how_they_lie(shape):
    """With masks and a fixed centre: inner distances are those asked for, hands too."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[2:, 5:] = False
    space, cond = ZeroCoM(), Cond({"mask": mask})
    prior = FunctionDenoiser(lambda x, t, c: space.project(0.5 * x, c), EDM(20.0), space)
    known = torch.zeros(1, *shape)
    known[:, :4] = 2 * torch.randn(4, *shape[1:], generator=generator)
    where = torch.arange(6)[None] < 4
    x = Churn(20)(Replacement(prior, known, where, rigid=True), shape, cond, n=4).x
    assert torch.allclose(space.project(x, cond), x, atol=1e-5)
    part, want = x[:, :4], known[:, :4].expand(4, *known[:, :4].shape[1:])
    assert torch.allclose(kabsch(want, part), part, atol=1e-4)
    assert (x[2:, 5:] == 0).all()


def test_rigid_replacement_turns_with_the_sample():
    space = ZeroCoM()
    known, where = torch.randn(1, 5, 3), torch.arange(5)[None] < 3
    inner = FunctionDenoiser(lambda x, t, c: space.project(0.3 * x, c), EDM(20.0), space)
    kept = Replacement(inner, known, where, rigid=True)
    x, t = space.project(torch.randn(3, 5, 3), Cond()), torch.tensor(0.2, dtype=torch.float64)
    turn = random_rotations(Rng(0, torch.arange(3)))
    assert torch.allclose(kept(x @ turn, t).x0, kept(x, t).x0 @ turn, atol=1e-5)


def test_replacement_refuses():
    with pytest.raises(ValueError, match="nothing is known"):
        Replacement(gaussian(torch.zeros(2), COV, VP()), torch.zeros(1, 2), torch.zeros(1, 2) > 0)
    aligned = FunctionDenoiser(lambda x, t, c: x, VP(), gives="velocity")
    with pytest.raises(TypeError, match="velocity"):
        Replacement(aligned, torch.zeros(1, 2), torch.ones(1, 2) > 0)


@pytest.mark.parametrize("make", [VP, EDM, RectifiedFlow])
def test_partial_noise_keeps_the_law(make, mixture):
    """Noised samples of the data, denoised, are samples of the data; little noise keeps each."""
    prior = mixture(make())
    data, sampler = prior.draw(3000).float(), DDPM(100, Karras())
    index = torch.arange(3000)
    for level, near in ((0.05, True), (2.0, False)):
        t = time_of_level(level, prior.schedule)
        c = prior.coefficients(t, 2)
        assert float(c.sigma / c.alpha) == pytest.approx(level)
        x = noised(data, t, prior, Cond(), 0, index)
        way = rest_of_way(t, sampler, prior.schedule)
        out = sampler(prior, (2,), index=index, x=x, times=way).x
        assert torch.allclose(out.mean(0), data.mean(0), atol=0.12)
        assert torch.allclose(out.T.cov(), data.T.cov(), atol=0.3)
        assert bool((out - data).norm(dim=1).mean() < 0.2) is near
    with pytest.raises(ValueError, match="more than 0"):
        time_of_level(0.0, prior.schedule)
    with pytest.raises(ValueError, match="noise"):
        time_of_level(1e9 if make is not RectifiedFlow else float("inf"), prior.schedule)


def cloud(space, n=5):
    mask = torch.ones(3, n, dtype=torch.bool)
    mask[2, n - 1] = False
    lap = (
        torch.diag_embed(mask.sum(1, keepdim=True).float() * mask)
        - (mask[:, :, None] & mask[:, None]).float()
    )
    return space.prepare(Cond({"mask": mask, "laplacian": lap}))


@pytest.mark.parametrize("space", [ZeroCoM(), Harmonic()])
def test_round_trip_of_padded_clouds(space):
    cond = cloud(space)
    schedule = EDM(10.0)

    def thought(x, t, c):
        """Of no known law, but the data themselves where there is no noise."""
        noise = schedule.sigma(t).float().view(-1, 1, 1) ** 2
        return space.project(
            x / (1 + noise) + noise / (1 + noise) * torch.tanh(x[:, [1, 0, 2, 3, 4]]), c
        )

    prior = FunctionDenoiser(thought, schedule, space)
    x = space.project(torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(1)), cond)
    flow = ProbabilityFlow(prior, rtol=1e-5, atol=1e-5)
    assert round_trip(flow, x, cond).max() < 1e-3
    assert (flow.encode(x, cond)[2, 4:] == 0).all()


def test_slerp_stays_on_the_sphere():
    a, b = torch.randn(2, 4, 30, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    space, cond = Euclidean(), Cond()
    a, b = a / a.norm(dim=1, keepdim=True), 3 * b / b.norm(dim=1, keepdim=True)
    assert torch.allclose(slerp(a, b, 0.0, space, cond), a)
    assert torch.allclose(slerp(a, b, 1.0, space, cond), b)
    assert torch.allclose(slerp(a, b, 0.5, space, cond).norm(dim=1), torch.tensor(2.0).double())
    assert torch.allclose(slerp(a, 2 * a, 0.5, space, cond), 1.5 * a)
    apart = [slerp(a, b / 3, w, space, cond) for w in (0.0, 0.3, 1.0)]
    angle = [(apart[0] * v).sum(1).clamp(-1, 1).acos() for v in apart[1:]]
    assert torch.allclose(angle[0], 0.3 * angle[1])


def test_interpolation_ends_where_it_should(mixture):
    prior = mixture(VP())
    a, b = prior.draw(2, seed=1)[:, None]
    flow = ProbabilityFlow(prior, rtol=1e-5, atol=1e-5)
    way = interpolate(flow, a, b, 5)
    assert torch.allclose(way[[0, -1]], torch.cat([a, b]), atol=1e-3)
    density = prior.log_prob(way, torch.tensor(0.0, dtype=torch.float64))
    assert density.min() > -12
    with pytest.raises(ValueError, match="two ends"):
        interpolate(flow, a, b, 1)
