"""Projected denoisers: samples that lie in a set, whatever the sampler."""

import pytest
import torch

from sciffusion.core.analytic import gaussian
from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import PREVIOUS, FunctionDenoiser, NetworkDenoiser, State
from sciffusion.core.geometry import kabsch, random_rotations
from sciffusion.core.parameterization import X0
from sciffusion.core.projection import Projected, RigidGroups, with_known
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import DDIM, DDPM, Churn, DPMSolverPP, Euler, Heun, alphafold3
from sciffusion.core.schedules import EDM, VP
from sciffusion.core.spaces import ZeroCoM

N, B = 14, 6
GROUP = torch.tensor([0, 1, 1, 1, 1, 0, 0, 2, 2, 2, 2, 2, 0, 0]).expand(B, N)
SAMPLERS = [
    DDPM(12), DDIM(12), Euler(12), Heun(8), DPMSolverPP(10), Churn(12), alphafold3(12, 1.0),
]  # fmt: skip


def noise(purpose, shape, n=B):
    return Rng(0, torch.arange(n)).normal(purpose, shape, dtype=torch.float64)


def off_proper(x, target, mine):
    """The most that points lie off their target after the best proper motion."""
    return float((kabsch(target, x, mine) - x)[mine].abs().max())


@pytest.fixture
def target():
    return noise("target", (N, 3)) * 3 + 40.0  # wherever it lies


def cloud(schedule):
    """An exact denoiser of Gaussian points that know nothing of any motif."""
    data = gaussian(torch.zeros(3 * N).double(), torch.eye(3 * N).double() * 4, schedule)
    return FunctionDenoiser(lambda x, t, c: data(x, t).x0, schedule, ZeroCoM())


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__ + str(s.steps))
@pytest.mark.parametrize("schedule", [VP(), EDM(80.0)], ids=lambda s: type(s).__name__)
def test_every_sampler_holds_the_motif_and_never_its_mirror(sampler, schedule, target):
    denoiser = Projected(cloud(schedule), RigidGroups())
    cond = with_known(Cond(), target, GROUP)
    x = sampler(denoiser, (N, 3), cond, n=B, after_step=denoiser.settle, dtype=torch.float64).x
    mirror = target * torch.tensor([1.0, 1.0, -1.0]).double()
    for group in (1, 2):
        assert off_proper(x, target, group == GROUP) < 1e-8
        assert off_proper(x, mirror, group == GROUP) > 0.1
    assert off_proper(x, target, GROUP > 0) > 0.1  # groups are free relative to each other
    torch.testing.assert_close(x.mean(1), torch.zeros_like(x[:, 0]))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__ + str(s.steps))
def test_what_is_independent_of_the_motif_keeps_its_law(sampler, target):
    """Of independent points those that are free go their way as if nothing were held."""
    data = gaussian(torch.zeros(3 * N).double(), torch.eye(3 * N).double() * 4, VP())
    denoiser = Projected(data, RigidGroups())
    cond = with_known(Cond(), target, GROUP)
    held, plain = (
        sampler(d, (N, 3), cond, n=B, after_step=after, dtype=torch.float64).x
        for d, after in ((denoiser, denoiser.settle), (data, None))
    )
    torch.testing.assert_close(held[GROUP == 0], plain[GROUP == 0])
    assert float((held - plain)[GROUP > 0].abs().max()) > 1


def test_a_thought_that_holds_the_motif_is_left_alone(target):
    turned = target @ random_rotations(Rng(0, torch.arange(B)), dtype=torch.float64) + 3.0
    x0 = torch.where((GROUP == 1)[..., None], turned, noise("x0", (N, 3)))
    one = GROUP * (GROUP == 1)
    torch.testing.assert_close(RigidGroups()(x0, with_known(Cond(), target, one)), x0)


def test_it_is_the_nearest_cloud_that_holds_the_motif(target):
    """Other motions lie farther; twice is the same as once."""
    x0, cond = noise("x0", (N, 3)), with_known(Cond(), target, GROUP)
    found = RigidGroups()(x0, cond)
    torch.testing.assert_close(RigidGroups()(found, cond), found)
    best = (found - x0).square().sum((1, 2))
    for k in range(5):
        small = random_rotations(Rng(k, torch.arange(B)), dtype=torch.float64)
        other = (found - found.mean(1, keepdim=True)) @ small + found.mean(1, keepdim=True)
        other = torch.where((GROUP > 0)[..., None], other, x0)
        assert bool(((other - x0).square().sum((1, 2)) >= best - 1e-9).all())


def test_it_turns_with_the_thought_and_needs_no_frame_of_the_motif(target):
    x0 = noise("x0", (N, 3))
    turn = random_rotations(Rng(1, torch.arange(B)), dtype=torch.float64)
    there = RigidGroups()(x0, with_known(Cond(), target, GROUP))
    torch.testing.assert_close(
        RigidGroups()(x0 @ turn + 5.0, with_known(Cond(), target @ turn.mT - 9.0, GROUP)),
        there @ turn + 5.0,
    )


def test_images_are_projected_by_any_function():
    """Replacement of known pixels: one function, the same wrapper."""
    known, here = noise("image", (1, 4, 4)), torch.arange(4) < 2
    denoiser = Projected(
        FunctionDenoiser(lambda x, t, c: torch.zeros_like(x), VP()),
        lambda x0, c: torch.where(here, known, x0),
    )
    x = Euler(10)(denoiser, (1, 4, 4), n=B, after_step=denoiser.settle, dtype=torch.float64).x
    torch.testing.assert_close(x[..., :2], known[..., :2])
    assert float(x[..., 2:].abs().max()) < 1e-6


def test_outside_its_interval_nothing_is_done():
    inner = FunctionDenoiser(lambda x, t, c: torch.zeros_like(x), EDM(80.0))
    denoiser = Projected(inner, lambda x0, c: x0 + 1, (0.5, 2.0))
    for level, value in ((5.0, 0.0), (2.1, 0.0), (1.9, 1.0), (0.6, 1.0), (0.4, 0.0)):
        t = inner.schedule.t_of_log_snr(-2 * torch.tensor(level, dtype=torch.float64).log())
        pred = denoiser(torch.zeros(2, 3), t)
        assert float(pred.x0.mean()) == value
        assert float(pred.eps.mean()) == pytest.approx(-value / level)


class Remembers(torch.nn.Module):
    """Answers with what it is told of its last thought."""

    self_conditioned = True

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, x, log_snr, cond):
        self.seen.append(cond.structure.get(PREVIOUS))
        return torch.zeros_like(x)


def test_the_network_sees_the_projected_thought():
    network = Remembers()
    denoiser = Projected(NetworkDenoiser(network, VP(), X0()), lambda x0, c: x0 + 7)
    state = State(Rng(0, torch.arange(3)))
    for _ in range(2):
        denoiser(torch.zeros(3, 2), torch.tensor(0.5, dtype=torch.float64), Cond(), state)
    assert network.seen[0] is None
    assert network.seen[1].eq(7).all()
    assert state.nfe == 2


def test_projections_compose_and_the_outer_one_has_the_last_word():
    inner = FunctionDenoiser(lambda x, t, c: torch.zeros_like(x), VP())
    denoiser = Projected(Projected(inner, lambda x0, c: x0 + 2), lambda x0, c: x0 * 5)
    t = torch.tensor(0.3, dtype=torch.float64)
    assert denoiser(torch.zeros(1, 2), t).x0.eq(10).all()
    end = torch.zeros((), dtype=torch.float64)
    state = State(Rng(0, torch.arange(1)))
    assert denoiser.settle(torch.zeros(1, 2), t, end, Cond(), state).eq(10).all()
    assert denoiser.settle(torch.zeros(1, 2), t, t, Cond(), state).eq(0).all()
