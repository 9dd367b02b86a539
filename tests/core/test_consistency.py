"""Consistency networks: exact boundary, exact law with the known function, a loss that finds it."""

import math

import pytest
import torch
from torch import nn

from sciffusion.core.analytic import GaussianJump, GaussianMixture, gaussian
from sciffusion.core.cond import Cond
from sciffusion.core.consistency import (
    Closing,
    ConsistencyDistillation,
    ConsistencyLoss,
    ConsistencyPreconditioned,
)
from sciffusion.core.denoiser import PREVIOUS, FunctionDenoiser, NetworkDenoiser
from sciffusion.core.guidance import Clip
from sciffusion.core.parameterization import (
    X0,
    Coefficients,
    Eps,
    Preconditioned,
    V,
    Velocity,
)
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import DDPM, Churn, Consistency, DormandPrince, DPMSolverPP
from sciffusion.core.schedules import EDM, VP, RectifiedFlow
from sciffusion.core.spaces import ZeroCoM
from sciffusion.core.times import Between, Levels

MEAN = torch.tensor([1.0, -0.5])
COV = torch.tensor([[0.5, 0.2], [0.2, 0.3]])
ONE = torch.ones((), dtype=torch.float64)


class Wild(nn.Module):
    """A network that answers anything at all."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, x, log_snr, cond):
        return self.weight * (5 * x + 1).sin() + 1


def rng(n, step=0, seed=0):
    return Rng(seed, torch.arange(n), step)


@pytest.mark.parametrize("schedule", [EDM(), VP(), RectifiedFlow()])
@pytest.mark.parametrize(
    "parameterization", [Preconditioned(0.5), V(), Velocity(), ConsistencyPreconditioned(0.5, 0)]
)
def test_nothing_is_moved_where_there_is_no_noise(schedule, parameterization):
    if isinstance(schedule, VP) and isinstance(parameterization, Velocity):
        pytest.skip("its sigma' is infinite at t = 0")
    denoiser = NetworkDenoiser(Wild(), schedule, parameterization, gives="jump")
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(denoiser(x, 0 * ONE).x0, x)


@pytest.mark.parametrize("schedule", [EDM(), VP(), RectifiedFlow()])
def test_the_shifted_form_moves_nothing_at_sigma_min(schedule):
    sigma_min = 0.05
    denoiser = NetworkDenoiser(
        Wild(), schedule, ConsistencyPreconditioned(0.5, sigma_min), gives="jump"
    )
    t = schedule.t_of_log_snr(-2 * torch.tensor(sigma_min, dtype=torch.float64).log())
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    y = x / float(schedule.alpha(t))
    assert (denoiser(x, t).x0 - y).abs().max() < 1e-6
    assert (denoiser(x, 2 * t).x0 - y).abs().max() > 1e-2
    assert denoiser.sigma_min == Clip(denoiser).sigma_min == sigma_min


def test_the_shifted_form_is_the_published_one():
    sd, least, s = 0.5, 0.002, 3.0
    c = Coefficients(EDM(80), torch.tensor(s / 80, dtype=torch.float64), 2)
    x, raw = torch.randn(2, 64, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    form = ConsistencyPreconditioned(sd, least)
    skip, out = sd**2 / ((s - least) ** 2 + sd**2), (s - least) * sd / math.sqrt(s**2 + sd**2)
    x0, eps = form.to_x0_eps(raw, x, c)
    assert torch.allclose(x0, skip * x + out * raw)
    assert torch.allclose(form.target(x0, eps, c), raw)
    plain = Preconditioned(sd).to_x0_eps(raw, x, c)[0]
    assert torch.allclose(ConsistencyPreconditioned(sd, 0).to_x0_eps(raw, x, c)[0], plain)


def test_what_cannot_jump_is_refused():
    for parameterization in (X0(), Eps()):
        with pytest.raises(ValueError, match="needs edm, v or velocity"):
            NetworkDenoiser(Wild(), VP(), parameterization, gives="jump")
    with pytest.raises(ValueError, match="sigma_min"):
        ConsistencyPreconditioned(0.5, 0.6)


def test_samplers_and_networks_that_do_not_fit_refuse_each_other():
    jump, mean = GaussianJump(MEAN, COV, EDM()), gaussian(MEAN, COV, EDM())
    for sampler in (DPMSolverPP(2), Churn(2), DDPM(2)):
        with pytest.raises(TypeError, match=r"jumps to the data.* use a consistency sampler"):
            sampler(jump, shape=(2,))
    with pytest.raises(TypeError, match="distil it first"):
        Consistency(1)(mean, shape=(2,))
    assert Consistency(1, accept_means=True)(mean, shape=(2,)).nfe == 1


@pytest.mark.parametrize("schedule", [EDM(20), VP(), RectifiedFlow()])
def test_the_known_function_is_where_the_ode_ends(schedule):
    walked = DormandPrince(rtol=1e-7, atol=1e-7, sigma_min=1e-5)(
        gaussian(MEAN, COV, schedule), shape=(2,), n=64, dtype=torch.float64
    )
    jump = GaussianJump(MEAN, COV, schedule)
    jumped = Consistency(1)(jump, shape=(2,), n=64, dtype=torch.float64)
    assert (walked.x - jumped.x).abs().max() < 1e-5


@pytest.mark.parametrize("sigma_min", [0.0, 0.2])
@pytest.mark.parametrize("schedule", [EDM(200), VP(), RectifiedFlow()])
@pytest.mark.parametrize("levels", [[], [0.8], [3.0, 0.8, 0.3]])
def test_any_number_of_jumps_keeps_the_law(schedule, levels, sigma_min):
    jump, n = GaussianJump(MEAN, COV, schedule, sigma_min), 40_000
    out = Consistency(levels=levels)(jump, shape=(2,), n=n)
    cov = COV + sigma_min**2 * torch.eye(2)
    assert out.nfe == len(levels) + 1
    assert ((out.x.mean(0) - MEAN).abs() < 4.5 * (cov.diag() / n).sqrt() + 0.01).all()
    spread = (cov.diag()[:, None] * cov.diag() + cov**2).sqrt() / n**0.5
    assert ((out.x.T.cov() - cov).abs() < 4.5 * spread + 2e-3).all()


def test_steps_come_back_to_the_levels_that_were_asked_for():
    grid = Consistency(levels=[0.8, 0.1]).grid(3, EDM(80))
    assert torch.allclose(80 * grid, torch.tensor([80, 0.8, 0.1, 0.0], dtype=torch.float64))
    for steps, levels in ((1, []), (2, [1.0]), (4, [8 ** (2 / 3), 1.0, 8 ** (-2 / 3)])):
        grid = Consistency(steps, Between(1 / 8, 8)).grid(steps, EDM(80))
        wanted = torch.tensor([80, *levels, 0], dtype=torch.float64)
        assert torch.allclose(80 * grid, wanted)
    for schedule in (EDM(2.0), VP(), RectifiedFlow()):  # which may start under the highest level
        assert (Consistency(6).grid(6, schedule).diff() < 0).all()
    with pytest.raises(ValueError, match="levels between"):
        Levels([0.8])(4, EDM())
    with pytest.raises(ValueError, match="does not fall"):
        Levels([0.1, 0.8])(3, EDM())


def test_levels_close_in_stage_by_stage():
    closing, t = Closing(q=2, stages=8), torch.logspace(-3, 3, 50, dtype=torch.float64)
    ratios = torch.stack([closing(t, p) for p in torch.linspace(0, 0.999, 8).tolist()])
    assert [closing.stage(p) for p in (0, 0.13, 0.99, 1.0, 2.0)] == [1, 2, 8, 8, 8]
    assert (ratios[0, t < 1] == 0).all()  # denoising, to begin with
    assert (ratios[1:] >= ratios[:-1]).all()
    assert (ratios < 1).all()
    # Geng et al. 2024 with sigma_data 0.5: n(t) = 1 + 8 sigmoid(-t)
    n = 1 + 8 / (1 + math.exp(0.7))
    assert closing(torch.tensor([0.7 / 0.5]), 0.5)[0] == pytest.approx(1 - n / 2**5, abs=1e-6)


class Bent(nn.Module):
    """The exact jump plus theta times something that vanishes at the boundary."""

    def __init__(self, theta=0.0, schedule=None):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(float(theta), dtype=torch.float64))
        self.exact = GaussianJump(MEAN, COV, schedule or EDM())

    def denoiser(self):
        def jump(x, t, cond):
            x0 = self.exact(x, t).x0
            return x0 + self.theta * (x0 - x / self.exact.coefficients(t, 2).alpha).tanh()

        return FunctionDenoiser(jump, self.exact.schedule, gives="jump")


def mean_loss(loss, bent, n=20_000, step=99):
    data = gaussian(MEAN, COV, EDM()).draw(n)
    return loss(bent.denoiser(), data, None, rng(n, step))


@pytest.mark.parametrize("schedule", [EDM(), VP()])
@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_distillation_is_least_at_the_exact_jump(schedule, solver):
    loss = ConsistencyDistillation(
        0.7, closing=Closing(stages=8), huber=None, total_steps=100, solver=solver
    )
    loss.learn_from(gaussian(MEAN, COV, schedule))
    exact, *bent = (mean_loss(loss, Bent(v, schedule)).mean() for v in (0, 0.1, -0.1, 0.3))
    assert exact < 0.02 * min(bent)


def test_a_finer_step_of_the_teacher_is_nearer_to_the_path():
    """The local error of Heun's step falls with the third power of its length, Euler's second."""
    for solver, order in (("euler", 2), ("heun", 3)):
        errors = []
        for stage in (7, 9):
            loss = ConsistencyDistillation(
                0.7, closing=Closing(stages=stage), huber=None, total_steps=100, solver=solver
            )
            loss.learn_from(gaussian(MEAN, COV, EDM()))
            # times the gap: the loss is divided by it
            errors.append(float(mean_loss(loss, Bent()).detach().mean() / 2**stage) ** 0.5)
        assert math.log2(errors[0] / errors[1]) / 2 > order - 0.4


def test_training_alone_rests_at_the_exact_jump_and_is_drawn_to_it():
    loss = ConsistencyLoss(0.7, closing=Closing(stages=9), huber=None, total_steps=100)

    def slope(theta):
        bent = Bent(theta)
        parts = []
        for seed in range(20):
            data = gaussian(MEAN, COV, EDM()).draw(4000, seed)
            value = loss(bent.denoiser(), data, None, rng(4000, 99, seed)).mean()
            parts.append(torch.autograd.grad(value, bent.theta)[0])
        parts = torch.stack(parts)
        return float(parts.mean()), float(parts.std() / len(parts) ** 0.5)

    rest, error = slope(0.0)
    assert abs(rest) < 4 * error + 2e-2 * abs(slope(0.3)[0])
    assert slope(0.3)[0] > 10 * error
    assert slope(-0.3)[0] < -10 * error


def test_both_answers_drop_the_same_features():
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.drop = nn.Parameter(torch.ones(())), nn.Dropout(0.5)
            self.seen = []

        def forward(self, x, log_snr, cond):
            self.seen.append(self.drop(torch.ones_like(x)))
            return self.weight * self.seen[-1]

    network = Dropping()
    denoiser = NetworkDenoiser(network, EDM(), Preconditioned(0.5), gives="jump")
    loss = ConsistencyLoss(0.5)
    for _ in range(2):
        loss(denoiser, torch.zeros(32, 5), None, rng(32)).sum().backward()
    a, b, c, d = network.seen
    assert torch.equal(a, b)
    assert torch.equal(c, d)
    assert not torch.equal(a, c)


def test_gradients_flow_through_the_noisier_answer_alone():
    """Where the nearer level is the boundary, the target is the data: plain denoising."""
    network = Wild()
    denoiser = NetworkDenoiser(network, EDM(), Preconditioned(0.5), gives="jump")
    loss = ConsistencyLoss(0.5, closing=Closing(q=1e9, stages=1, k=1e12), huber=None)
    value = loss(denoiser, torch.ones(8, 3), None, rng(8))
    s, r, _ = loss.levels(denoiser, rng(8))
    assert (r == 0).all()
    eps = denoiser.space.noise(rng(8), "train noise", (3,))
    x0 = denoiser(torch.ones(8, 3) + s[:, None].float() * eps, s / 80).x0
    expected = ((x0 - 1) / 0.5).square().mean(1) * (0.5 / s).float()
    assert torch.allclose(value, expected, rtol=1e-4)


def test_one_sample_s_loss_depends_on_its_place_alone():
    denoiser = NetworkDenoiser(Wild(), EDM(), Preconditioned(0.5), gives="jump")
    loss, data = ConsistencyLoss(0.5), torch.randn(16, 3)
    whole = loss(denoiser, data, None, rng(16, 7))
    part = loss(denoiser, data[4:9], None, Rng(0, torch.arange(4, 9), 7))
    assert torch.allclose(whole[4:9], part)


def test_padding_does_not_count():
    denoiser = NetworkDenoiser(Wild(), EDM(), Preconditioned(0.5), ZeroCoM(), gives="jump")
    loss, x = ConsistencyLoss(0.5), torch.randn(4, 6, 3)
    x = x - x.mean(1, keepdim=True)
    short = loss(denoiser, x, Cond({"mask": torch.ones(4, 6).bool()}), rng(4))
    mask = torch.arange(9).expand(4, 9) < 6
    padded = nn.functional.pad(x, (0, 0, 0, 3))
    assert torch.allclose(loss(denoiser, padded, Cond({"mask": mask}), rng(4)), short, rtol=1e-4)


def test_a_self_conditioned_network_jumps_from_x_alone():
    class Looking(Wild):
        self_conditioned = True

        def forward(self, x, log_snr, cond):
            assert not cond.structure.get(PREVIOUS, torch.zeros(1)).any()
            return super().forward(x, log_snr, cond)

    denoiser = NetworkDenoiser(Looking(), EDM(), Preconditioned(0.5), gives="jump")
    ConsistencyLoss(0.5)(denoiser, torch.ones(8, 3), None, rng(8)).sum().backward()
    Consistency(4)(denoiser, shape=(3,), n=5)


def test_a_self_conditioned_teacher_is_shown_its_thought():
    class Echo(nn.Module):
        self_conditioned = True
        shown = 0

        def forward(self, x, log_snr, cond):
            self.shown += int(cond.structure.get(PREVIOUS, torch.zeros(1)).abs().max() > 0)
            return torch.ones_like(x)

    teacher = NetworkDenoiser(Echo(), EDM(), X0())
    loss = ConsistencyDistillation(0.5)
    loss.learn_from(teacher)
    student = NetworkDenoiser(Wild(), EDM(), Preconditioned(0.5), gives="jump")
    loss(student, torch.ones(8, 3), None, rng(8))
    assert teacher.network.shown == 2  # Heun's two slopes
    assert not list(loss.parameters())
    with pytest.raises(ValueError, match="no ODE"):
        loss.learn_from(student)
    with pytest.raises(ValueError, match="needs a teacher"):
        ConsistencyDistillation(0.5)(student, torch.ones(8, 3), None, rng(8))


@pytest.mark.parametrize("schedule", [VP(), RectifiedFlow()])
def test_schedules_that_end_in_pure_noise_are_trained_to_their_end(schedule):
    denoiser = NetworkDenoiser(Wild(), schedule, V(), gives="jump")
    loss = ConsistencyLoss(0.5, reach=10.0)
    value = loss(denoiser, torch.ones(4000, 2), None, rng(4000))
    s, r, _ = loss.levels(denoiser, rng(4000))
    assert value.isfinite().all()
    assert 0.01 < float((s == s.max()).double().mean()) < 0.2  # such are at t = 1
    assert (loss._time(denoiser, s)[s == s.max()] == 1).all()
    assert ((r >= 0) & (r < s)).all()


class Small(nn.Module):
    """An MLP of x and the level."""

    def __init__(self, width=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(10, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x, log_snr, cond):
        level = log_snr[:, None].clamp(-14, 14) / 4 * torch.tensor([0.5, 1, 2, 4])
        return self.layers(torch.cat([x, level.sin(), level.cos()], 1))


MIXTURE = GaussianMixture(
    torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.04 * torch.eye(2).repeat(2, 1, 1), EDM(10)
)


def trained(loss, denoiser, steps, batch=256):
    loss.total_steps = steps
    optimizer = torch.optim.Adam(denoiser.parameters(), 3e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        data = MIXTURE.draw(batch, step).float()
        optimizer.zero_grad()
        loss(denoiser, data, None, rng(batch, step)).mean().backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
    return denoiser


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tuning", "distillation"])
def test_a_small_network_learns_where_the_paths_of_a_mixture_end(kind):
    torch.manual_seed(0)
    denoiser = NetworkDenoiser(Small(), EDM(10), Preconditioned(1.0), gives="jump")
    if kind == "tuning":
        loss = ConsistencyLoss(1.0, closing=Closing(stages=6), huber=None)
    else:
        loss = ConsistencyDistillation(1.0, closing=Closing(stages=6, first=4), huber=None)
        loss.learn_from(MIXTURE)
    before = float((ends(denoiser) - ends(None)).square().mean().sqrt())
    trained(loss, denoiser, 1500 if kind == "tuning" else 900)
    error = (ends(denoiser) - ends(None)).norm(dim=1)
    assert float(error.square().mean().sqrt()) < 0.35 < before
    assert float(error.median()) < 0.12
    two = Consistency(levels=[0.5])(denoiser, shape=(2,), n=4000).x
    data = MIXTURE.draw(4000, 7).float()
    assert (two.mean(0) - data.mean(0)).abs().max() < 0.1
    assert (two.T.cov() - data.T.cov()).abs().max() < 0.15


def ends(denoiser):
    """Where one jump, or the exact ODE, takes the same noise."""
    sampler, source = (
        (Consistency(1), denoiser) if denoiser else (DormandPrince(rtol=1e-5, atol=1e-5), MIXTURE)
    )
    return sampler(source, shape=(2,), n=500).x
