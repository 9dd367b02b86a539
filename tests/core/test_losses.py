"""Losses: identities of the weightings, the Bayes error, and randomness by place."""

import pytest
import torch

from sciffusion.core.analytic import gaussian
from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import FunctionDenoiser, NetworkDenoiser
from sciffusion.core.fourier import Fourier, c_noise
from sciffusion.core.losses import (
    SNR,
    ClippedInverseSquare,
    DenoisingLoss,
    EDMWeight,
    FlowMatching,
    MinSNR,
    Simple,
    Uncertainty,
    measure_sigma_data,
)
from sciffusion.core.parameterization import X0, Coefficients, Eps, Preconditioned, V, Velocity
from sciffusion.core.rng import Rng
from sciffusion.core.schedules import VP, RectifiedFlow
from sciffusion.core.spaces import ZeroCoM
from sciffusion.core.times import LogNormal, Stratified, Uniform

T = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


@pytest.fixture
def c(schedule):
    return Coefficients(schedule, T, 1)


def close(a, b):
    return torch.allclose(a, b.expand_as(a), rtol=1e-8, atol=1e-12)


def test_weightings(c):
    eps, velocity, edm = Eps(), Velocity(), Preconditioned(0.6)
    simple = Simple()
    assert close(simple(c, eps.gain(c)), SNR()(c, eps.gain(c)))
    assert close(simple(c, X0().gain(c)), torch.ones(1).double())
    assert close(simple(c, velocity.gain(c)), FlowMatching()(c, velocity.gain(c)))
    assert close(EDMWeight(0.6)(c, edm.gain(c)) * edm.gain(c) ** 2, torch.ones(1).double())
    s = c.sigma / c.alpha
    assert close(EDMWeight(0.6)(c, edm.gain(c)), (s**2 + 0.36) / (0.6 * s) ** 2)
    assert close(MinSNR(5)(c, edm.gain(c)), (1 / s**2).clamp_max(5))
    # v: SNR + 1 on a variance-preserving schedule (Salimans & Ho 2022).
    on_v = simple(c, V().gain(c))
    assert close(on_v / c.norm**2, (1 / s**2 + 1))


def test_clipped_inverse_square_is_flow_matching_but_at_low_noise():
    c = Coefficients(RectifiedFlow(), T, 1)
    one, two = ClippedInverseSquare(0.1)(c, c.t), FlowMatching()(c, c.t)
    assert close(one[T > 0.1], two[T > 0.1])
    assert float(one[0]) == pytest.approx(100)


class Exact(torch.nn.Module):
    """What a perfectly trained network of N(0, std^2) data answers, in any parameterization."""

    def __init__(self, schedule, parameterization, std):
        super().__init__()
        self.schedule, self.parameterization, self.std = schedule, parameterization, std

    def forward(self, y, log_snr, cond):
        t = self.schedule.t_of_log_snr(log_snr.double())
        c = Coefficients(self.schedule, t, y.ndim)
        x = y / self.parameterization.scale_in(c)
        var = (c.alpha * self.std) ** 2 + c.sigma**2
        x0, eps = c.alpha * self.std**2 / var * x, c.sigma / var * x
        return self.parameterization.target(x0, eps, c)


@pytest.mark.parametrize("p", [Eps(), X0(), V(), Velocity(), Preconditioned(0.8)])
@pytest.mark.parametrize("weighting", [SNR(), EDMWeight(0.8), MinSNR(), FlowMatching(), Simple()])
def test_the_exact_network_has_the_bayes_error(p, weighting):
    """E |x0 - E[x0 | x_t]|^2 = std^2 sigma^2 / var per number, weighed."""
    schedule, std, n = VP(), 0.8, 3000
    x0 = std * torch.randn(n, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rng = Rng(0, torch.arange(n))
    denoiser = NetworkDenoiser(Exact(schedule, p, std), schedule, p)
    times = Uniform(0.02)
    loss = DenoisingLoss(times, weighting)(denoiser, x0, None, rng)
    c = Coefficients(schedule, times.sample(rng, schedule), 1)
    bayes = std**2 * c.sigma**2 / ((c.alpha * std) ** 2 + c.sigma**2)
    ratio = loss / (weighting(c, p.gain(c)) * bayes)
    assert abs(float(ratio.mean()) - 1) < 5 * (2 / (8 * n)) ** 0.5
    assert abs(float(ratio.var()) / (2 / 8) - 1) < 0.3  # a chi-square of 8 freedoms


def test_the_oracle_without_a_network_has_it_too():
    n = 3000
    x0 = 0.5 * torch.randn(n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    oracle = gaussian(torch.zeros(4), 0.25 * torch.eye(4), RectifiedFlow())
    loss = DenoisingLoss(weighting=EDMWeight(0.5))(oracle, x0, None, Rng(1, torch.arange(n)))
    # EDM's weight times the Bayes error is 1 at every level for Gaussian data of that sigma_data.
    assert float(loss.mean()) == pytest.approx(1, abs=5 * (2 / (4 * n)) ** 0.5)


@pytest.mark.parametrize("times", [Uniform(), LogNormal(), Stratified(Uniform())])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_the_split_into_micro_batches_does_not_matter(times, size):
    x0 = torch.randn(24, 5, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(5)[None] < torch.randint(2, 6, (24, 1))
    x0 = ZeroCoM().project(x0, Cond({"mask": mask}))
    denoiser = FunctionDenoiser(lambda x, t, cond: x.tanh(), VP(), ZeroCoM())
    loss = DenoisingLoss(times)

    def run(index, step=5, seed=2):
        rng = Rng(seed, index, step, total=24)
        return loss(denoiser, x0[index], Cond({"mask": mask[index]}), rng)

    whole = run(torch.arange(24))
    parts = torch.cat([run(i) for i in torch.arange(24).split(size)])
    assert torch.allclose(whole, parts, rtol=1e-5)
    assert not torch.allclose(whole, run(torch.arange(24), step=6))
    assert not torch.allclose(whole, run(torch.arange(24), seed=3))


def test_padding_does_not_change_a_loss():
    x0 = torch.randn(4, 3, 3)
    x0 = x0 - x0.mean(1, keepdim=True)
    denoiser = FunctionDenoiser(lambda x, t, cond: 0.3 * x, VP(), ZeroCoM())
    rng, loss = Rng(0, torch.arange(4)), DenoisingLoss()
    plain = loss(denoiser, x0, Cond({"mask": torch.ones(4, 3, dtype=torch.bool)}), rng)
    mask = torch.arange(6)[None].expand(4, 6) < 3
    padded = loss(denoiser, torch.cat([x0, 0 * x0], 1), Cond({"mask": mask}), rng)
    assert torch.allclose(plain, padded, rtol=1e-5)


def test_uncertainty_stays_in_full_precision():
    net = Uncertainty()
    torch.nn.init.normal_(net.weight, generator=torch.Generator().manual_seed(0))
    level = torch.linspace(-8, 8, 9)
    with torch.autocast("cpu", torch.bfloat16):
        half = net(level)
    assert torch.equal(half, net(level))


def test_fourier_features_are_of_unit_magnitude_at_every_level():
    level = c_noise(torch.tensor([-torch.inf, -8.0, 0.0, 3.0, torch.inf]))
    assert torch.isfinite(level).all()
    features = Fourier(8192).features(level)
    torch.testing.assert_close(features.square().mean(1), torch.ones(5), rtol=0.05, atol=0)


def test_uncertainty_is_least_at_the_logarithm_of_the_loss():
    """min over u of L exp(-u) + u is at u = log L, and stays finite at infinite log-SNR."""
    u = torch.tensor(0.0, requires_grad=True)
    for _ in range(200):
        (g,) = torch.autograd.grad(3.7 * (-u).exp() + u, u)
        u = (u - 0.3 * g).detach().requires_grad_()
    assert float(u.detach().exp()) == pytest.approx(3.7, rel=1e-3)
    net = Uncertainty()
    ends = net(torch.tensor([-torch.inf, 0.0, torch.inf]))
    assert torch.equal(ends, torch.zeros(3))  # a fresh one weighs nothing
    plain = DenoisingLoss(Uniform())
    weighed = DenoisingLoss(Uniform(), uncertainty=net)
    oracle = gaussian(torch.zeros(2), torch.eye(2), VP())
    x0, rng = torch.randn(9, 2), Rng(0, torch.arange(9))
    assert torch.allclose(plain(oracle, x0, None, rng), weighed(oracle, x0, None, rng))


def test_sigma_data():
    x = torch.randn(1000, 3)
    expected = float(x.square().mean().sqrt())
    assert measure_sigma_data(x.split(100)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="no data"):
        measure_sigma_data([])
