"""Linear inverse problems: adjoints, a Gaussian's exact conditional, a mixture's posterior."""

import math
from itertools import pairwise

import pytest
import torch

from sciffusion.core.analytic import GaussianMixture, gaussian
from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import FunctionDenoiser, State
from sciffusion.core.inverse import DPS, MomentMatching, PiGDM, zero_filled
from sciffusion.core.operators import (
    Channels,
    FourierMask,
    Mask,
    Matrix,
    blur,
    conjugate_gradients,
    shrink,
)
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import DDIM, DDPM, Twisted
from sciffusion.core.schedules import EDM, VP, RectifiedFlow
from sciffusion.core.spaces import ZeroCoM
from sciffusion.core.steering import Isotropic, NotFiniteError
from sciffusion.core.transitions import transition

A = torch.tensor([[1.0, -0.5, 0.2]], dtype=torch.float64)
MEAN = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
ROOT = torch.tensor([[1.0, 0, 0], [0.4, 0.7, 0], [-0.3, 0.5, 0.4]], dtype=torch.float64)
COV = ROOT @ ROOT.T
Y, STD = torch.tensor([[0.3]], dtype=torch.float64), 0.3


def posterior(mean, cov, a, y, std):
    """(mean, covariance, log evidence) of x given y = a x + std n, for x ~ N(mean, cov)."""
    s = a @ cov @ a.T + std**2 * torch.eye(len(a), dtype=torch.float64)
    gain = cov @ a.T @ torch.linalg.inv(s)
    off = y - a @ mean
    evidence = -0.5 * (off @ torch.linalg.solve(s, off) + torch.logdet(s))
    return mean + gain @ off, cov - gain @ a @ cov, evidence


def mixture_posterior(mixture, a, y, std):
    """The mixture that a mixture becomes once y is known."""
    parts = [posterior(m, c, a, y, std) for m, c in zip(mixture.means, mixture.covs, strict=True)]
    means, covs, evidence = (torch.stack(p) for p in zip(*parts, strict=True))
    weights = (mixture.log_weights + evidence).softmax(0)
    return GaussianMixture(means, covs, mixture.schedule, weights)


OPERATORS = {
    "mask": (Mask(torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) > 0.4), (3, 8, 6)),
    "matrix": (Matrix(A), (3,)),
    "shrink": (shrink(8, 4), (2, 8, 8)),
    "blur": (blur(8, 1.3), (2, 8, 8)),
    "grey": (Channels(torch.tensor([[0.3, 0.6, 0.1]])), (3, 5, 4)),
    "fourier": (FourierMask(torch.arange(48).view(8, 6) % 3 == 0), (2, 8, 6)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_adjoint(name):
    """<A x, y> = <x, A^T y>, and A A^+ y = y for y that can be measured."""
    operator, shape = OPERATORS[name]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    y = operator(x)
    other = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    left = (y * other).flatten(1).sum(1)
    assert torch.allclose(left, (x * operator.adjoint(other)).flatten(1).sum(1))
    if name != "blur":  # whose smallest singular values no solver brings back
        assert torch.allclose(operator(zero_filled(operator, y, 50)), y, atol=1e-5)


def test_shrink_is_the_mean_of_blocks():
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(shrink(8, 2)(x), torch.nn.functional.avg_pool2d(x, 2), atol=1e-6)
    with pytest.raises(ValueError, match="divide"):
        shrink(8, 3)
    with pytest.raises(ValueError, match="width"):
        blur(8, 0.0)


def test_conjugate_gradients_solve_each_sample():
    root = torch.randn(5, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = root @ root.mT + 0.1 * torch.eye(4)
    b = torch.ones(5, 4, dtype=torch.float64)
    b[2] = 0
    found = conjugate_gradients(lambda v: (matrix @ v[..., None])[..., 0], b, 20, 1e-10)
    assert torch.allclose(found, torch.linalg.solve(matrix, b), rtol=1e-6)


@pytest.mark.parametrize("make", [VP, EDM, RectifiedFlow])
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_moments_are_exact_for_a_gaussian(make, t):
    """At every noise level the led denoiser is the denoiser of the conditional."""
    prior = gaussian(MEAN, COV, make())
    mean, cov, _ = posterior(MEAN, COV, A, Y[0], STD)
    t = torch.tensor(t, dtype=torch.float64)
    x = 2 * torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    led = MomentMatching(prior, Matrix(A), Y, STD)
    exact = gaussian(mean, cov, prior.schedule)
    for times in (t, t.expand(5)):
        pred, truth = led(x, times), exact(x, times)
        for name in ("x0", "eps", "velocity", "score"):
            assert torch.allclose(getattr(pred, name), getattr(truth, name), rtol=1e-5), name


def test_pigdm_is_exact_where_the_data_are_white():
    prior = gaussian(MEAN, 0.7**2 * torch.eye(3, dtype=torch.float64), VP())
    mean, cov, _ = posterior(MEAN, prior.covs[0], A, Y[0], STD)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor(0.4, dtype=torch.float64)
    exact = gaussian(mean, cov, prior.schedule)(x, t)
    for covariance in (None, Isotropic(0.7)):
        led = PiGDM(prior, Matrix(A), Y, STD, sigma_data=0.7, covariance=covariance)
        assert torch.allclose(led(x, t).x0, exact.x0, rtol=1e-5)


def test_moments_are_exact_where_the_centre_is_fixed():
    """On the space of clouds without a centre of mass, against the same conditional."""
    n, schedule = 4, EDM(20.0)
    centring = torch.eye(n, dtype=torch.float64) - 1 / n
    flat = torch.kron(centring, torch.eye(3, dtype=torch.float64))
    root = flat @ torch.randn(12, 12, generator=torch.Generator().manual_seed(4)).double()
    cov = root @ root.T / 12
    space = ZeroCoM()
    zero = torch.zeros(1, 12, dtype=torch.float64)
    prior = GaussianMixture(zero, cov[None], schedule, noise_cov=flat, space=space)
    a = torch.randn(2, 12, generator=torch.Generator().manual_seed(5)).double() @ flat
    y = torch.tensor([0.4, -0.2], dtype=torch.float64)
    mean, cond_cov, _ = posterior(zero[0], cov, a, y, 0.2)
    exact = GaussianMixture(mean[None], cond_cov[None], schedule, noise_cov=flat, space=space)
    z = torch.randn(3, 12, generator=torch.Generator().manual_seed(6), dtype=torch.float64) @ flat
    x, t = (2 * z).view(3, n, 3), torch.tensor(0.1, dtype=torch.float64)
    led = MomentMatching(prior, Matrix(a, (n, 3)), y[None], 0.2)
    assert torch.allclose(led(x, t).x0, exact(x, t).x0, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("sampler", [DDPM(150), DDIM(60)])
def test_led_samplers_reach_the_gaussian_conditional(sampler):
    prior = gaussian(MEAN, COV, VP())
    mean, cov, _ = posterior(MEAN, COV, A, Y[0], STD)
    x = sampler(MomentMatching(prior, Matrix(A), Y.float(), STD), (3,), n=4000).x.double()
    error = (cov.diagonal() / 4000).sqrt()
    assert ((x.mean(0) - mean).abs() < 5 * error + 0.02).all()
    assert torch.allclose(x.T.cov(), cov, atol=0.06)


def distance_to(x, exact):
    """(error of the mean, of the covariance, of the modes' shares) against a mixture."""
    weights = exact.log_weights.exp()
    mean = weights @ exact.means
    off = exact.means - mean
    cov = torch.einsum("k,kij->ij", weights, exact.covs) + torch.einsum(
        "k,ki,kj->ij", weights, off, off
    )
    nearest = torch.cdist(x, exact.means).argmin(1)
    sure = exact.draw(200_000, seed=3)
    want = torch.cdist(sure, exact.means).argmin(1).bincount(minlength=len(weights)) / len(sure)
    share = nearest.bincount(minlength=len(weights)) / len(x)
    return (
        float((x.mean(0) - mean).abs().max()),
        float((x.T.cov() - cov).abs().max()),
        float((share - want).abs().max()),
    )


@pytest.mark.parametrize("solver", [PiGDM, MomentMatching])
def test_particles_reach_the_posterior_of_a_mixture(solver, mixture):
    """Whatever the twist."""
    prior = mixture(VP())
    a, y, std = torch.tensor([[1.0, 1.0]]), torch.tensor([[-0.6]]), 0.5
    exact = mixture_posterior(prior, a.double(), y[0].double(), std)
    led = solver(prior, Matrix(a), y, std, sigma_data=1.6)
    # Eight groups: their mean has an eighth of the variance of one.
    x = Twisted(100, particles=1024)(led, (2,), n=8192).x.double()
    mean, cov, share = distance_to(x, exact)
    assert mean < 0.06, (mean, cov, share)
    assert cov < 0.1, (mean, cov, share)
    assert share < 0.03, (mean, cov, share)


def test_particles_reach_the_posterior_of_a_short_chain():
    """Where the chain begins near the data, the first twist already tells particles apart."""
    one, y, std = torch.ones(1, 1), 2.0, 0.3
    prior = GaussianMixture(torch.zeros(1, 1), one[None], EDM(3.0))
    times = DDPM(20).grid(20, prior.schedule)
    var = 9.0  # of the unconditional chain, whose steps are linear
    for t, s in pairwise(times):
        q = transition(prior.schedule, t, s, 2)
        var = float(q.mean(one, prior(one, t).x0)) ** 2 * var + float(q.var)
    led = DPS(prior, Matrix(one), y * one, std)
    x = Twisted(20, particles=8192)(led, (1,), n=4 * 8192).x
    assert abs(float(x.mean()) - y * var / (var + std**2)) < 0.008


def test_particles_of_a_group_answer_one_question(mixture):
    led = PiGDM(mixture(VP()), Matrix(torch.ones(1, 2)), torch.zeros(1, 1), 0.4)
    sampler = Twisted(5, particles=4)
    labels = torch.tensor([0] * 4 + [1] * 4)
    assert sampler(led, (2,), Cond({}, {"label": labels}), n=8).x.isfinite().all()
    with pytest.raises(ValueError, match="one label"):
        sampler(led, (2,), Cond({}, {"label": torch.arange(8)}), n=8)


def test_particles_do_not_depend_on_the_batch(mixture):
    prior = mixture(VP())
    led = PiGDM(prior, Matrix(torch.ones(1, 2)), torch.zeros(1, 1), 0.4)
    sampler = Twisted(10, particles=16)
    both = sampler(led, (2,), n=32).x
    assert torch.equal(both[16:], sampler(led, (2,), n=16, first=16).x)
    with pytest.raises(ValueError, match="groups of 16"):
        sampler(led, (2,), n=20)
    with pytest.raises(TypeError, match="steered"):
        sampler(prior, (2,), n=16)
    exact = PiGDM(prior, Matrix(torch.ones(1, 2)), torch.zeros(1, 1), 0.0)
    with pytest.raises(ValueError, match="std > 0"):
        sampler(exact, (2,), n=16)


@pytest.mark.parametrize("solver", [DPS, PiGDM, MomentMatching])
def test_an_exact_measurement_is_met(solver, mixture):
    a, y = torch.tensor([[0.6, -0.8]]), torch.tensor([[0.7]])
    prior = mixture(VP())
    led = solver(prior, Matrix(a), y, sigma_data=1.6)
    assert (Matrix(a)(DDIM(100)(led, (2,), n=300).x) - y).abs().mean() < 0.05


def test_gradients_pass_through_a_led_denoiser(mixture):
    """So that two can be put one around the other."""
    inner = PiGDM(mixture(VP()), Matrix(torch.tensor([[1.0, 0.0]])), torch.zeros(1, 1), 0.5)
    outer = PiGDM(inner, Matrix(torch.tensor([[0.0, 1.0]])), torch.zeros(1, 1), 0.5)
    x, t = torch.ones(3, 2), torch.tensor(0.4, dtype=torch.float64)
    pred = outer(x, t)
    assert not pred.x0.requires_grad
    assert (pred.x0 - inner(x, t).x0).abs().min() > 1e-3
    back = pred.c.alpha * pred.x0 + pred.c.sigma * pred.eps
    assert torch.allclose(back.float(), x, atol=1e-5)


def test_interval_limit_and_refusals(mixture):
    prior = mixture(EDM(10.0))
    x, t = torch.ones(2, 2, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    y = torch.full((1, 1), 50.0, dtype=torch.float64)
    operator = Matrix(torch.tensor([[1.0, 0.0]]))
    free, led = prior(x, t).x0, PiGDM(prior, operator, y, 0.1)(x, t).x0
    away = PiGDM(prior, operator, y, 0.1, interval=(3.0, 9.0))(x, t).x0
    assert torch.equal(away, free)
    c = prior.coefficients(t, 2)
    r = float(c.sigma / (c.alpha**2 + c.sigma**2).sqrt())
    held = PiGDM(prior, operator, y, 0.1, limit=0.5)(x, t).x0
    size = ((held - free) ** 2).mean(1).sqrt()
    assert torch.allclose(size, torch.full_like(size, 0.5 * r))
    assert (led - free).norm() > (held - free).norm()
    with pytest.raises(ValueError, match="interval"):
        PiGDM(prior, operator, y, interval=(2.0, 1.0))
    with pytest.raises(ValueError, match="numbers"):
        PiGDM(prior, operator, torch.full((1, 1), math.nan))
    aligned = FunctionDenoiser(lambda x, t, c: x, VP(), gives="velocity")
    with pytest.raises(TypeError, match="velocity"):
        PiGDM(aligned, operator, y)
    bad = FunctionDenoiser(lambda x, t, c: x / 0, VP())
    with pytest.raises(NotFiniteError, match="sample 0"):
        PiGDM(bad, operator, y)(x, t)


def test_no_graph_is_carried_from_step_to_step(mixture):
    state = State(Rng(0, torch.arange(2)))
    led = PiGDM(mixture(VP()), Matrix(torch.ones(1, 2)), torch.zeros(1, 1), 0.3)
    with torch.no_grad():
        pred = led(torch.ones(2, 2), torch.tensor(0.5).double(), state=state)
    assert not any(v.requires_grad for v in (pred.x, pred.x0, pred.eps))
    assert state.nfe == 1
