"""Parameterizations and denoisers: conversions both ways, EDM's formulae, other schedules."""

import pytest
import torch

from sciffusion.core.denoiser import NetworkDenoiser, Rescheduled
from sciffusion.core.parameterization import X0, Coefficients, Eps, Preconditioned, V, Velocity
from sciffusion.core.samplers import DormandPrince, DPMSolverPP
from sciffusion.core.schedules import EDM, VP, RectifiedFlow

KINDS = {"eps": Eps, "x0": X0, "v": V, "velocity": Velocity, "edm": lambda: Preconditioned(0.7)}
TIMES = torch.tensor([0.02, 0.3, 0.5, 0.8, 0.97], dtype=torch.float64)


def world(schedule, seed=0):
    g = torch.Generator().manual_seed(seed)
    x0, eps, raw = (torch.randn(5, 3, 2, generator=g, dtype=torch.float64) for _ in range(3))
    c = Coefficients(schedule, TIMES, 3)
    return x0, eps, raw, c.alpha * x0 + c.sigma * eps, c


@pytest.mark.parametrize("kind", KINDS)
def test_round_trips_and_gain(kind, schedule):
    p = KINDS[kind]()
    x0, eps, raw, x, c = world(schedule)
    scale = 1 / c.sigma.clamp_max(1) / c.alpha.clamp_max(1)
    back0, back_eps = p.to_x0_eps(p.target(x0, eps, c), x, c)
    assert ((back0 - x0).abs() < 1e-10 * scale**2).all()
    assert ((back_eps - eps).abs() < 1e-10 * scale**2).all()
    # Any raw output stands for an (x0, eps) that makes up x_t ...
    x0_hat, eps_hat = p.to_x0_eps(raw, x, c)
    assert torch.allclose(c.alpha * x0_hat + c.sigma * eps_hat, x, rtol=1e-9, atol=1e-9)
    # ... and the gain is its derivative.
    other, _ = p.to_x0_eps(raw + 1, x, c)
    assert torch.allclose(other - x0_hat, p.gain(c).expand_as(x0), rtol=1e-8, atol=1e-10)


def test_edm_coefficients():
    """c_skip, c_out, c_in of Karras et al. 2022 on their own schedule."""
    sd, schedule = 0.7, EDM()
    p, c = Preconditioned(sd), Coefficients(schedule, TIMES, 1)
    s, x, raw = c.sigma, torch.tensor(1.3).double(), torch.tensor(-0.4).double()
    skip, out = sd**2 / (s**2 + sd**2), s * sd / (s**2 + sd**2).sqrt()
    assert torch.allclose(p.to_x0_eps(raw, x, c)[0], skip * x + out * raw)
    assert torch.allclose(p.scale_in(c), 1 / (s**2 + sd**2).sqrt())
    assert torch.allclose(p.gain(c), out)


def test_edm_target_and_input_have_unit_variance(schedule):
    g = torch.Generator().manual_seed(0)
    x0 = 0.7 * torch.randn(200_000, generator=g, dtype=torch.float64)
    eps = torch.randn(200_000, generator=g, dtype=torch.float64)
    p = Preconditioned(0.7)
    for t in TIMES:
        c = Coefficients(schedule, t, 1)
        x = c.alpha * x0 + c.sigma * eps
        for unit in (p.scale_in(c) * x, p.target(x0, eps, c)):
            assert float(unit.square().mean()) == pytest.approx(1, abs=5 * (2 / 200_000) ** 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_prediction_agrees_with_itself(kind, schedule):
    """v, velocity and score of one thought, whichever way it was expressed."""
    x0, eps, _, x, c = world(schedule)
    p = KINDS[kind]()

    class Oracle(torch.nn.Module):
        def forward(self, y, log_snr, cond):
            assert log_snr.shape == (5,)
            return p.target(x0, eps, c)

    if kind == "eps" and float(schedule.alpha(torch.ones(()).double())) == 0:
        return
    pred = NetworkDenoiser(Oracle(), schedule, p)(x, TIMES)
    loose = {"rtol": 1e-6, "atol": 1e-6}
    assert torch.allclose(pred.v, c.alpha * eps - c.sigma * x0, **loose)
    assert torch.allclose(pred.velocity, c.d_alpha * x0 + c.d_sigma * eps, **loose)
    assert torch.allclose(pred.score, -eps / c.sigma, **loose)
    error, gain = pred.error(x0, eps)
    assert error.abs().max() < 1e-9
    assert torch.allclose(gain, p.gain(c))


def test_score_is_the_gradient_of_the_mixtures_log_density(schedule, mixture):
    oracle = mixture(schedule)
    x = 2 * torch.randn(5, 2, dtype=torch.float64)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(oracle.log_prob(x, TIMES).sum(), x)
    score = oracle(x.detach(), TIMES).score
    assert torch.allclose(score, gradient, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("make", [VP, EDM, RectifiedFlow])
def test_velocity_is_the_slope_of_the_ode_path(make, mixture):
    schedule = make()
    oracle, h = mixture(schedule), 1e-4
    x = torch.tensor([[0.4, -0.9], [1.2, 0.3]], dtype=torch.float64)
    t = torch.tensor(0.3, dtype=torch.float64)
    exact = DormandPrince(rtol=1e-12, atol=1e-12)
    down, up = torch.stack([t, t - h]), t + h
    ahead = exact(oracle, (2,), n=2, x=x, times=down, dtype=torch.float64).x
    # The path through x from a little above: shoot down from up and correct once by the velocity.
    guess = x + h * oracle(x, t).velocity
    for _ in range(20):
        landed = exact(
            oracle, (2,), n=2, x=guess, times=torch.stack([up, t]), dtype=torch.float64
        ).x
        guess = guess - (landed - x)
    slope = (guess - ahead) / (2 * h)
    assert torch.allclose(oracle(x, t).velocity, slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trained", [VP, EDM, RectifiedFlow])
def test_another_schedule_is_the_native_denoiser_of_that_schedule(trained, schedule, mixture):
    native, moved = mixture(schedule), Rescheduled(mixture(trained()), schedule)
    ends = moved.inner.schedule.log_snr(torch.tensor([1.0, 0.0]).double())
    t = TIMES[schedule.log_snr(TIMES) > ends[0]]
    t = t[schedule.log_snr(t) < ends[1]]
    assert len(t) >= 3
    x = torch.randn(len(t), 2, dtype=torch.float64) * schedule.sigma(t)[:, None].clamp_min(1)
    a, b = native(x, t), moved(x, t)
    for name in ("x0", "eps", "v", "velocity", "score"):
        one, two = getattr(a, name), getattr(b, name)
        assert torch.allclose(one, two, rtol=1e-6, atol=1e-7), name
    for i in range(len(t)):  # one time for all, as samplers ask
        assert torch.allclose(moved(x[i : i + 1], t[i]).eps, a.eps[i : i + 1], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("trained", [VP, EDM, lambda: EDM(30.0)])
@pytest.mark.parametrize("target", [RectifiedFlow, EDM, lambda: EDM(300.0)])
def test_beyond_the_trained_range_sampling_still_reaches_the_law(trained, target, mixture):
    """From pure noise, where the trained schedule has no such level, log-SNR is clamped."""
    oracle = Rescheduled(mixture(trained()), target())
    x = DPMSolverPP(60)(oracle, (2,), n=3000, seed=0).x
    exact = oracle.inner.draw(100_000)
    assert x.isfinite().all()
    assert torch.allclose(x.mean(0).double(), exact.mean(0), atol=0.15)
    assert torch.allclose(x.T.cov().double(), exact.T.cov(), atol=0.25)


def test_the_network_sees_the_same_in_every_schedule_at_equal_log_snr():
    """c_in x_t and log-SNR do not tell which variance the schedule keeps."""
    seen = []

    class Look(torch.nn.Module):
        def forward(self, y, log_snr, cond):
            seen.append((y, log_snr))
            return y

    x0, eps = torch.randn(2, 1, 3, dtype=torch.float64)
    for schedule in (VP(), EDM(), RectifiedFlow()):
        t = schedule.t_of_log_snr(torch.tensor([0.8], dtype=torch.float64))
        x = schedule.alpha(t) * x0 + schedule.sigma(t) * eps
        NetworkDenoiser(Look(), schedule, V())(x, t)
    for y, log_snr in seen[1:]:
        assert torch.allclose(y, seen[0][0])
        assert torch.allclose(log_snr, seen[0][1])
