"""The bound: against entropies known in closed form, torch.distributions and normalisation."""

import math

import pytest
import torch

from sciffusion.core import tables
from sciffusion.core.analytic import gaussian
from sciffusion.core.denoiser import FunctionDenoiser, NetworkDenoiser
from sciffusion.core.losses import DenoisingLoss
from sciffusion.core.parameterization import Eps
from sciffusion.core.rng import Rng
from sciffusion.core.schedules import VP
from sciffusion.core.times import Discrete
from sciffusion.core.transitions import transition
from sciffusion.core.vlb import discrete_bound, discretised_log_likelihood, gaussian_kl

LEVELS = torch.linspace(-1, 1, 256, dtype=torch.float64)


def test_gaussian_kl_is_torchs():
    m1, l1, m2, l2 = torch.randn(4, 50, dtype=torch.float64)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(m1, (0.5 * l1).exp()), normal(m2, (0.5 * l2).exp())
    )
    assert torch.allclose(gaussian_kl(m1, l1, m2, l2), expected)


@pytest.mark.parametrize("mean", [-30.0, -1.0, 0.003, 0.7, 5.0])
@pytest.mark.parametrize("log_std", [-7.0, -4.0, -1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bins_sum_to_one_with_finite_gradients(mean, log_std, dtype):
    m = torch.full((256,), mean, dtype=dtype, requires_grad=True)
    s = torch.full((256,), log_std, dtype=dtype, requires_grad=True)
    log_p = discretised_log_likelihood(LEVELS.to(dtype), m, s)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    assert float(log_p.detach().exp().sum()) == pytest.approx(1, abs=tolerance)
    assert log_p.isfinite().all()
    log_p.sum().backward()
    assert m.grad.isfinite().all()
    assert s.grad.isfinite().all()


def test_bins_are_cdf_differences():
    normal = torch.distributions.Normal(*torch.tensor([0.1, 0.3], dtype=torch.float64))
    inner, half = LEVELS[1:-1], 1 / 255
    expected = (normal.cdf(inner + half) - normal.cdf(inner - half)).log()
    zero = torch.zeros(254, dtype=torch.float64)
    ours = discretised_log_likelihood(inner, zero + 0.1, zero + math.log(0.3))
    assert torch.allclose(ours, expected, rtol=1e-9, atol=1e-9)


def draw(p, n, d):
    g = torch.Generator().manual_seed(0)
    k = torch.multinomial(p, n * d, replacement=True, generator=g)
    return LEVELS[k].view(n, d)


def fine_table(steps):
    """log-SNR even from 15, where half an 8-bit bin is seven standard deviations, to -8.

    Under DDPM's own tables the first noise is wider than a bin, and L_0 alone costs most of a bit.
    """
    return tables.Table(torch.linspace(15, -8, steps, dtype=torch.float64).sigmoid())


def exact_denoiser(p, schedule):
    """The posterior mean of independent values on the 256 levels with probabilities p."""

    def x0(x, t, cond):
        a, s = schedule.alpha(t), schedule.sigma(t)
        logits = p.log() - 0.5 * ((x[..., None] - a * LEVELS) / s) ** 2
        return logits.softmax(-1) @ LEVELS

    return FunctionDenoiser(x0, schedule)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["uniform", "gaussian"])
def test_the_bound_lies_just_above_the_entropy(shape):
    """8 bits of a uniform value; the entropy of a binned Gaussian."""
    p = torch.ones(256, dtype=torch.float64)
    if shape == "gaussian":
        p = (-0.5 * (LEVELS / 0.2) ** 2).exp()
    p = p / p.sum()
    entropy = -float((p * p.log2()).sum())
    x = draw(p, 40, 30)
    # Against the drawn values' own log-probability, which takes out most of the sampling error.
    own = -float(p.log2()[((x + 1) * 127.5).round().long()].mean())
    assert own == pytest.approx(entropy, abs=0.1)
    gaps = []
    for steps in (100, 200):
        denoiser, rng = exact_denoiser(p, fine_table(steps)), Rng(0, torch.arange(40))
        bound = discrete_bound(denoiser, x, None, rng, steps)
        gaps.append(float(bound.total.mean()) - own)
        assert bound.terms.shape == (40, steps)
        assert (bound.prior >= 0).all()
    # Above it, by a gap that falls as 1 / T to nothing.
    assert gaps[0] > gaps[1] > 0
    assert 2 * gaps[1] - gaps[0] == pytest.approx(0, abs=0.1)


def test_the_bound_of_a_gaussian_falls_with_steps():
    x = draw((-0.5 * (LEVELS / 0.2) ** 2).exp(), 50, 30)
    totals = []
    for steps in (25, 50, 100, 200):
        oracle = gaussian(torch.zeros(30), 0.04 * torch.eye(30), fine_table(steps))
        rng = Rng(0, torch.arange(50))
        totals.append(float(discrete_bound(oracle, x, None, rng, steps).total.mean()))
    assert totals == sorted(totals, reverse=True)


def test_posterior_is_that_of_ddpm():
    """Ho et al. 2020, eq. 6-7, in their own notation, at every step of the table."""
    table = tables.linear(200)
    beta, ab = table.betas, table.alphas_cumprod
    before = torch.cat([torch.ones(1, dtype=torch.float64), ab[:-1]])
    i = torch.arange(200, dtype=torch.float64)
    q = transition(table, (i + 1) / 200, i / 200, 1)
    close = {"rtol": 1e-9, "atol": 1e-13}
    assert torch.allclose(q.x0, before.sqrt() * beta / (1 - ab), **close)
    assert torch.allclose(q.x_t, (1 - beta).sqrt() * (1 - before) / (1 - ab), **close)
    assert torch.allclose(q.var, beta * (1 - before) / (1 - ab), **close)
    assert torch.allclose(q.var_large, beta, **close)
    assert torch.allclose(q.log_var_clipped[1:], q.var[1:].log())
    assert float(q.log_var_clipped[0]) == pytest.approx(float(q.var[1].log()), rel=1e-9)


class Learned(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.var = torch.nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

    def forward(self, x, log_snr, cond):
        return torch.cat([self.mean * x, self.var * torch.ones_like(x)], 1)


def test_hybrid_loss_gives_the_mean_no_gradient_from_the_bound():
    x = draw(torch.ones(256).double(), 32, 6).view(32, 2, 3)
    gradients = []
    for weight in (0.0, 0.5):
        network = Learned()
        denoiser = NetworkDenoiser(network, tables.linear(), Eps(), learned_variance=True)
        loss = DenoisingLoss(Discrete(1000), vlb_weight=weight)
        loss(denoiser, x, None, Rng(0, torch.arange(32))).mean().backward()
        gradients.append((network.mean.grad.clone(), network.var.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert gradients[0][1] is None or float(gradients[0][1]) == 0
    assert float(gradients[1][1].abs()) > 0
    assert gradients[1][1].isfinite()


def test_steps_on_the_grid_stay_on_it():
    """(i / T) T is not always i in floating point: the bound's step must be i all the same."""
    from sciffusion.core.vlb import step_kl

    network = Learned()
    steps = 1000
    i = torch.arange(1, steps + 1, dtype=torch.float64)
    denoiser = NetworkDenoiser(network, tables.linear(), Eps(), learned_variance=True)
    x = torch.zeros(steps, 1, 1, dtype=torch.float64) + 1 / 255
    exact = denoiser(x, i / steps)
    with torch.no_grad():
        on = step_kl(denoiser, exact, x, i / steps, steps)
        below = step_kl(denoiser, exact, x, (i - 0.5) / steps, steps)
    assert torch.equal(on, below)


def test_only_posterior_means_have_a_bound():
    denoiser = FunctionDenoiser(lambda x, t, c: x, VP(), gives="velocity")
    with pytest.raises(TypeError, match="posterior mean"):
        discrete_bound(denoiser, torch.zeros(1, 2), None, Rng(0, torch.arange(1)), 4)
