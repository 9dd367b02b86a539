"""The flow's density is the law's, on worlds whose density is known; and it can be walked back."""

import math

import pytest
import torch
from torch import nn

from sciffusion.core import tables
from sciffusion.core.analytic import GaussianMixture, gaussian
from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import FunctionDenoiser, NetworkDenoiser
from sciffusion.core.discrete import PIXEL, bits_per_dim, dequantised
from sciffusion.core.guidance import ClassifierGuided
from sciffusion.core.likelihood import (
    Hutchinson,
    ProbabilityFlow,
    round_trip,
)
from sciffusion.core.parameterization import Preconditioned, V, Velocity
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import DPMSolverPP, Heun
from sciffusion.core.schedules import EDM, VP, RectifiedFlow
from sciffusion.core.spaces import Harmonic, ZeroCoM

NOW = torch.tensor(0.0, dtype=torch.float64)
END = torch.tensor(1.0, dtype=torch.float64)


@pytest.mark.parametrize(
    "make", [RectifiedFlow, lambda: tables.zero_terminal_snr(tables.linear())], ids=["rf", "zero"]
)
def test_a_mixture_under_schedules_that_end_in_noise_alone(make, mixture):
    oracle = mixture(make())
    x = oracle.draw(40, 1).float()
    out = ProbabilityFlow(oracle).log_prob(x)
    assert (out.value - oracle.log_prob(x, NOW)).abs().max() < 1e-3
    assert (out.error == 0).all()


def test_a_mixture_under_every_schedule(schedule, mixture):
    """Where some data are left at t = 1 the noise is no longer quite Gaussian: with the true law
    there, the density is the data's."""
    oracle = mixture(schedule)
    x = oracle.draw(20, 1)
    out = ProbabilityFlow(oracle).log_prob(x)
    c = oracle.coefficients(END, 2)
    prior = oracle.space.log_prob(out.latent)
    # The angle says where the noise ends; its sample has length sigma / sin(angle).
    true = oracle.log_prob(c.sigma * out.latent, END) + out.dim * c.sigma.log()
    first = max(2e-3, float(schedule.sigma(NOW) / schedule.alpha(NOW)))
    start = schedule.t_of_log_snr(torch.tensor(-2 * math.log(first), dtype=torch.float64))
    a = schedule.alpha(start)
    exact = oracle.log_prob(a * x, start) + out.dim * a.log()
    assert (out.value - prior + true - exact).abs().max() < 1e-3


def test_the_density_of_samples_is_that_of_the_linear_map():
    """A Gaussian's flow is linear: under VP, too, the samples' own law is known exactly."""
    var, schedule = torch.tensor([0.5, 0.02], dtype=torch.float64), VP()
    oracle = gaussian(torch.tensor([1.0, -0.5]), var.diag(), schedule)
    x, out = ProbabilityFlow(oracle, sigma_min=1e-3).draw((2,), n=30, seed=3, dtype=torch.float64)
    a, s = schedule.alpha(END), schedule.sigma(END)
    stretch = (var / (a**2 * var + s**2)).sqrt()
    mean = oracle.means[0] * (1 - stretch * a)
    exact = torch.distributions.Normal(mean, stretch * s).log_prob(x).sum(1)
    assert (out.value - exact).abs().max() < 1e-3


def cloud(n, padded, schedule, seed=0, d=3):
    """(oracle, mask) of centred Gaussian clouds of n points, at the front of `padded` ones."""
    generator = torch.Generator().manual_seed(seed)
    centring = torch.eye(n) - 1 / n
    middle = torch.zeros(padded, padded)
    middle[:n, :n] = centring
    noise = torch.kron(middle, torch.eye(d)).double()
    root = 0.4 * torch.randn(padded * d, padded * d, generator=generator, dtype=torch.float64)
    cov = noise @ (root @ root.T / (padded * d) + 0.1 * torch.eye(padded * d)) @ noise
    mean = torch.randn(padded * d, generator=generator, dtype=torch.float64) @ noise
    oracle = GaussianMixture(mean[None], cov[None], schedule, noise_cov=noise, space=ZeroCoM())
    return oracle, torch.arange(padded) < n


def test_centred_clouds_have_the_density_of_their_degrees_of_freedom():
    """Lebesgue measure on the 3 (N - 1) dimensions; neither padding nor the batch matters."""
    found = []
    for padded in (4, 6):
        oracle, mask = cloud(4, padded, RectifiedFlow())
        x = cloud(4, 4, RectifiedFlow())[0].draw(5, 2).view(5, 4, 3)
        x = torch.nn.functional.pad(x, (0, 0, 0, padded - 4))
        cond = Cond({"mask": mask.expand(5, -1)})
        if padded == 4:
            reference, exact = oracle, oracle.log_prob(x, NOW)
        # The same law on the padded coordinates.
        fn = _same_law(reference, padded)
        out = ProbabilityFlow(fn).log_prob(x, cond)
        assert (out.dim == 9).all()
        assert (out.value - exact).abs().max() < 1e-3
        assert (out.latent.sum(1).abs() < 1e-6).all()
        alone = ProbabilityFlow(fn).log_prob(x[3:4], cond[3:4]).value
        assert (alone - out.value[3:4]).abs().max() < 1e-8
        found.append(out.value)
    assert (found[0] - found[1]).abs().max() < 1e-8


def _same_law(oracle, padded):
    def x0(x, t, cond):
        y = oracle(x[:, :4].reshape(len(x), -1), t).x0.view(-1, 4, 3)
        return torch.nn.functional.pad(y, (0, 0, 0, padded - 4))

    return FunctionDenoiser(x0, oracle.schedule, ZeroCoM())


def test_probes_belong_to_samples_not_to_padding():
    oracle, _ = cloud(4, 4, RectifiedFlow())
    x = oracle.draw(3, 2).view(3, 4, 3)
    values = []
    for padded in (4, 7):
        cond = Cond({"mask": (torch.arange(padded) < 4).expand(3, -1)})
        y = torch.nn.functional.pad(x, (0, 0, 0, padded - 4))
        flow = ProbabilityFlow(_same_law(oracle, padded), Hutchinson(2))
        values.append(flow.log_prob(y, cond, seed=5).value)
    one = flow.log_prob(y[2:], cond[2:], seed=5, index=torch.tensor([2])).value
    assert (values[0] - values[1]).abs().max() < 1e-8
    assert (one - values[0][2:]).abs().max() < 1e-8


def test_harmonic_clouds():
    """A chain of three: noise of the bond graph, 6 degrees of freedom."""
    lap = torch.tensor([[1.0, -1, 0], [-1, 2, -1], [0, -1, 1]])
    space, schedule = Harmonic(), RectifiedFlow()
    cond = space.prepare(Cond({"laplacian": lap.expand(4, 3, 3)}))
    noise = torch.kron(cond.structure["harmonic_root"][0], torch.eye(3).double())
    noise = noise @ noise
    oracle = GaussianMixture(
        torch.zeros(1, 9), 0.25 * noise[None], schedule, noise_cov=noise, space=space
    )
    x = oracle.draw(4).view(4, 3, 3)
    out = ProbabilityFlow(oracle).log_prob(x, cond)
    assert (out.dim == 6).all()
    assert (out.value - oracle.log_prob(x, NOW)).abs().max() < 1e-3


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased_and_knows_its_error(noise, mixture):
    oracle = mixture(RectifiedFlow())
    x = oracle.draw(30, 1)
    exact = ProbabilityFlow(oracle).log_prob(x).value
    out = ProbabilityFlow(oracle, Hutchinson(24, noise)).log_prob(x, seed=1)
    z = (out.value - exact) / out.error
    assert abs(float(z.mean())) < 5 / 30**0.5
    assert 0.6 < float(z.std()) < 1.5
    assert ProbabilityFlow(oracle, Hutchinson()).log_prob(x).error.isnan().all()


def test_round_trip(schedule, mixture):
    oracle = mixture(schedule)
    x = oracle.draw(20, 4).float()
    assert round_trip(ProbabilityFlow(oracle), x).max() < 1e-3


class Net(nn.Module):
    """A small smooth network of any number of points."""

    def __init__(self, d=2):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(d + 1, 32), nn.Tanh(), nn.Linear(32, d))

    def forward(self, x, log_snr, cond):
        told = (log_snr.clamp(-20, 20) / 20).view(-1, *[1] * (x.ndim - 1)).expand_as(x[..., :1])
        return self.body(torch.cat([x, told], -1))


@pytest.mark.parametrize(
    ("schedule", "parameterization"),
    [(EDM(), Preconditioned(0.5)), (VP(), V()), (RectifiedFlow(), Velocity())],
    ids=["edm", "v", "velocity"],
)
def test_a_network_s_samples_know_their_density(schedule, parameterization):
    """Drawn with its density, asked again for it, and walked back: all agree; the density
    integrates to one."""
    flow = ProbabilityFlow(NetworkDenoiser(Net(), schedule, parameterization))
    x, drawn = flow.draw((2,), n=6, seed=2)
    asked = flow.log_prob(x)
    assert (asked.value - drawn.value).abs().max() < 5e-3
    assert (asked.latent - drawn.latent).norm() < 1e-3 * drawn.latent.norm()
    middle, width = x.mean(0), 8 * float(x.std())
    side = torch.linspace(-1, 1, 41)[:-1] * width
    points = torch.cartesian_prod(side, side) + middle
    total = flow.log_prob(points).value.exp().sum() * (side[1] - side[0]) ** 2
    assert float(total) == pytest.approx(1, abs=0.02)


def test_a_network_of_centred_points_need_not_be_centred_itself():
    """The flow is that of the projected velocity: the density of its samples is its own."""
    flow = ProbabilityFlow(NetworkDenoiser(Net(3), EDM(), Preconditioned(1.0), ZeroCoM()))
    cond = Cond({"mask": torch.tensor([[True] * 4 + [False]] * 3)})
    x, drawn = flow.draw((5, 3), cond, n=3)
    assert x.sum(1).abs().max() < 1e-4
    asked = flow.log_prob(x, cond)
    assert (asked.value - drawn.value).abs().max() < 5e-3
    assert (drawn.dim == 9).all()


def test_gradients_of_the_density(mixture):
    """d log p / dx is the score."""
    oracle = mixture(RectifiedFlow())
    x = oracle.draw(3, 1).requires_grad_()
    flow = ProbabilityFlow(oracle, rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(flow.log_prob(x, grad=True).value.sum(), x)
    (score,) = torch.autograd.grad(oracle.log_prob(x, NOW).sum(), x)
    assert (gradient - score).abs().max() < 1e-2 * score.abs().max()
    assert not flow.log_prob(x).value.requires_grad


@pytest.mark.parametrize("sampler", [Heun(6), DPMSolverPP(6)], ids=["heun", "dpmpp"])
def test_gradients_flow_through_samplers_where_asked(sampler):
    """To the start, against finite differences, and to every weight."""
    denoiser = NetworkDenoiser(Net(), VP(), V()).double()
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)

    def end(start, grad=True):
        return sampler(denoiser, (2,), n=3, x=start, dtype=torch.float64, grad=grad).x

    assert torch.autograd.gradcheck(end, (x,))
    end(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in denoiser.parameters())
    with torch.inference_mode(False):
        assert not end(x, grad=False).requires_grad
        assert not end(x, grad=False).is_inference()


def test_pixels_that_are_uniform_have_eight_bits():
    """256 levels of width 2/255 cover 512/255: the constants of [-1, 1]."""
    dim = torch.tensor([12.0, 3.0])
    assert torch.allclose(bits_per_dim(-dim * math.log(256 * PIXEL), dim), torch.full((2,), 8.0))
    levels = torch.arange(256).float().repeat(40, 1) / 127.5 - 1
    x = dequantised(levels, Rng(0, torch.arange(40)))
    assert torch.equal(((x + 1) * 127.5).round(), torch.arange(256).float().expand(40, -1))
    assert float(x.double().std() ** 2) == pytest.approx((256 * PIXEL) ** 2 / 12, rel=0.02)


def test_what_has_no_density_is_refused(mixture):
    oracle = mixture(VP())
    guided = ClassifierGuided(oracle, lambda x, t, cond: -x.square().sum(1))
    with pytest.raises(TypeError, match="ClassifierGuided does not pass"):
        ProbabilityFlow(guided).log_prob(oracle.draw(2))
    jump = FunctionDenoiser(lambda x, t, c: x, VP(), gives="jump")
    with pytest.raises(TypeError, match="jumps to the data"):
        ProbabilityFlow(jump)
    for wrong in ({"probes": 0}, {"noise": "cauchy"}):
        with pytest.raises(ValueError, match=r"probes=0|rademacher"):
            Hutchinson(**wrong)
