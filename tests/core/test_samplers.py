"""What samplers refuse and share: needs, the loop, conformance."""

import itertools

import pytest
import torch

from sciffusion.core.analytic import gaussian
from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import FunctionDenoiser
from sciffusion.core.samplers import (
    DDIM,
    DDPM,
    Churn,
    DormandPrince,
    DPMSolverPP,
    Euler,
    Heun,
    PredictorCorrector,
    SDEDPMSolverPP,
)
from sciffusion.core.samplers.base import Sampler
from sciffusion.core.schedules import VP, RectifiedFlow
from sciffusion.core.spaces import ZeroCoM
from sciffusion.testing import check_sampler_conformance

ODE = [DDIM(4), Euler(4), Heun(4), DPMSolverPP(4), DPMSolverPP(4, order=3), DormandPrince()]
SDE = [DDIM(4, eta=0.1), DDPM(4), Churn(4), PredictorCorrector(4), SDEDPMSolverPP(4)]
FULL = [
    DDIM(100),
    DDIM(200, eta=1.0),
    DDPM(200),
    Euler(150),
    Heun(30),
    DPMSolverPP(20),
    DPMSolverPP(20, order=3),
    SDEDPMSolverPP(30),
    Churn(80, noise_scale=1.0),
    PredictorCorrector(150, snr=0.05),
    DormandPrince(),
]


@pytest.mark.parametrize("sampler", FULL, ids=lambda s: type(s).__name__)
def test_conformance(sampler):
    check_sampler_conformance(sampler)


def test_a_velocity_is_enough_for_ode_samplers_only():
    """An aligned network's velocity is right, its eps / sigma is no score."""
    denoiser = FunctionDenoiser(lambda x, t, c: 0.2 * x, RectifiedFlow(), gives="velocity")
    for sampler in ODE:
        assert sampler(denoiser, (3,), n=2).x.isfinite().all()
    for sampler in SDE:
        with pytest.raises(TypeError, match="coupled by alignment"):
            sampler(denoiser, (3,), n=2)


def test_a_jump_is_for_consistency_samplers():
    jump = FunctionDenoiser(lambda x, t, c: 0.2 * x, RectifiedFlow(), gives="jump")
    for sampler in ODE + SDE:
        with pytest.raises(TypeError, match="consistency"):
            sampler(jump, (3,), n=2)

    class Consistency(Sampler):
        needs = "jump"

        def step(self, denoiser, x, t, s, cond, state):
            return self.predict(denoiser, x, t, cond, state).x0

    assert Consistency(1)(jump, (3,), n=2).nfe == 1
    with pytest.raises(TypeError, match="distil"):
        Consistency(1)(gaussian(torch.zeros(1), torch.eye(1), VP()), (1,))


def test_bad_arguments_are_refused():
    for make in (
        lambda: DDIM(eta=1.5),
        lambda: DDPM(variance="tiny"),
        lambda: DPMSolverPP(order=4),
    ):
        with pytest.raises(ValueError, match=r"not (1\.5|'tiny'|4)"):
            make()
    with pytest.raises(TypeError, match="learned_variance=true"):
        DDPM(3, variance="learned")(gaussian(torch.zeros(1), torch.eye(1), VP()), (1,))


def test_a_learned_schedule_never_reaches_a_sampler():
    class Learned(torch.nn.Module, RectifiedFlow):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

    from sciffusion.core.denoiser import Rescheduled

    with pytest.raises(TypeError, match="learned"):
        Rescheduled(gaussian(torch.zeros(1), torch.eye(1), VP()), Learned())


def test_trajectory_callback_and_after_step():
    oracle, seen = gaussian(torch.zeros(2), torch.eye(2), VP()), []
    out = DDIM(5)(
        oracle,
        (2,),
        n=3,
        trajectory=True,
        callback=lambda i, t, x: seen.append((i, float(t), x)),
        after_step=lambda x, t, s, cond, state: x.clamp(-0.1, 0.1),
    )
    assert len(out.trajectory) == 6
    assert torch.equal(out.trajectory[-1], out.x)
    assert [i for i, _, _ in seen] == list(range(5))
    assert [t for _, t, _ in seen] == out.times[1:].tolist()
    assert out.x.abs().max() <= 0.1


def test_dopri_steps_by_the_sample():
    """An easy sample takes what it would take alone, beside a hard one too."""
    oracle = gaussian(torch.zeros(1), torch.eye(1) * 1e-4, VP())
    sampler = DormandPrince(rtol=1e-4, atol=1e-4)
    both, one = (
        sampler(oracle, (1,), index=torch.tensor(index), dtype=torch.float64)
        for index in ([0, 1], [0])
    )
    assert torch.allclose(both.x[0], one.x[0], atol=1e-12)
    with pytest.raises(RuntimeError, match="not enough"):
        DormandPrince(max_calls=20)(oracle, (1,))


def test_renoise_keeps_the_marginal():
    """From s up to t by q(x_t | x_s): the level's own variance, whatever it came from."""
    for schedule in (VP(), RectifiedFlow()):
        oracle = gaussian(torch.tensor([0.8]), torch.tensor([[0.3]]), schedule)
        for times in ([1, 0.5, 0.3, 0.9], [1, 0.4, 0.0, 0.5], [1, 0.2, 0.6, 0.2, 0.7]):
            grid = torch.tensor(times).double()
            # Sixty steps down for each stretch, one jump up.
            legs = [
                torch.linspace(float(a), float(b), 60 if b < a else 2)[:-1]
                for a, b in itertools.pairwise(grid)
            ]
            fine = torch.cat([*legs, grid[-1:].float()])
            x = DPMSolverPP()(oracle, (1,), n=20_000, times=fine, dtype=torch.float64).x
            a, s = schedule.alpha(grid[-1]), schedule.sigma(grid[-1])
            var = float(a**2 * 0.3 + s**2)
            assert abs(float(x.mean()) - 0.8 * float(a)) < 5 * (var / 20_000) ** 0.5 + 0.01
            assert float(x.var()) == pytest.approx(var, rel=5 * (2 / 20_000) ** 0.5 + 0.01)


def test_samples_stay_in_their_space():
    """Zero centre of mass and zero padding survive every sampler."""
    mask = torch.tensor([[True, True, True, False]] * 5)
    cond, space = Cond({"mask": mask}), ZeroCoM()

    def x0(x, t, cond):
        return space.project(x.tanh(), cond)

    for sampler in ODE + SDE:
        x = sampler(FunctionDenoiser(x0, VP(), space), (4, 3), cond, n=5).x
        assert x.sum(1).abs().max() < 1e-4
        assert (x[:, 3] == 0).all()
