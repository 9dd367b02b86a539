"""Self-conditioning: a network is shown its last thought, the same one in training and sampling."""

import torch

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import PREVIOUS, NetworkDenoiser, State
from sciffusion.core.guidance import ClassifierFree
from sciffusion.core.losses import DenoisingLoss
from sciffusion.core.parameterization import X0
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import DDIM
from sciffusion.core.schedules import VP


class Echo(torch.nn.Module):
    """Answers what it was shown plus one, and remembers what it was shown."""

    self_conditioned = True

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.shown = []

    def forward(self, x, log_snr, cond):
        previous = cond.structure.get(PREVIOUS, torch.zeros_like(x))
        self.shown.append(previous)
        return previous + 1 + self.weight


def echo():
    return NetworkDenoiser(Echo(), VP(), X0())


def test_a_sampler_shows_each_step_the_one_before():
    denoiser = echo()
    out = DDIM(5)(denoiser, shape=(2,), n=3)
    assert [float(s.mean()) for s in denoiser.network.shown] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert torch.allclose(out.x, torch.full((3, 2), 5.0), atol=1e-5)


def test_calls_without_a_state_remember_nothing():
    denoiser = echo()
    t = torch.tensor(0.5, dtype=torch.float64)
    for _ in range(2):
        assert float(denoiser(torch.zeros(3, 2), t).x0.detach().max()) == 1.0


def test_each_branch_of_guidance_remembers_its_own():
    """A batch of twice the size has memories of twice the size; another size begins anew."""
    denoiser = echo()
    guided = ClassifierFree(denoiser, 2.0)
    state = State(Rng(0, torch.arange(3)))
    t, cond = torch.tensor(0.5, dtype=torch.float64), Cond(condition={"label": torch.arange(3)})
    for k in range(1, 3):
        assert float(guided(torch.zeros(3, 2), t, cond, state).x0.mean()) == k
    denoiser(torch.zeros(3, 2), t, cond, state)
    assert float(denoiser.network.shown[-1].abs().max()) == 0


def test_training_shows_a_share_of_the_samples_their_first_thought():
    denoiser, n = echo(), 4000
    loss = DenoisingLoss(self_condition=0.3)
    loss(denoiser, torch.zeros(n, 2), None, Rng(0, torch.arange(n)))
    first, second = denoiser.network.shown
    share = len(first) / n  # only these were looked at twice
    assert abs(share - 0.3) < 5 * (0.21 / n) ** 0.5
    assert int((second[:, 0] == 1).sum()) == len(first)
    assert set(second.unique().tolist()) == {0.0, 1.0}


def test_no_gradient_flows_through_the_first_thought():
    denoiser = echo()
    loss = DenoisingLoss(self_condition=1.0)
    loss(denoiser, torch.zeros(8, 2), None, Rng(0, torch.arange(8))).mean().backward()
    # x0 = 2 + 2 w if it did, 2 + w as it must
    assert torch.isfinite(denoiser.network.weight.grad).all()
    plain = echo()
    shown = torch.ones(8, 2)
    error = plain.network(shown, None, Cond({PREVIOUS: shown})).square().mean()
    error.backward()
    assert torch.allclose(denoiser.network.weight.grad, plain.network.weight.grad)


def test_who_is_shown_depends_on_seed_step_and_place_alone():
    def seen(places):
        denoiser = echo()
        DenoisingLoss()(denoiser, torch.zeros(len(places), 2), None, Rng(3, torch.tensor(places)))
        return denoiser.network.shown[-1][:, 0]

    whole = seen(list(range(16)))
    assert torch.equal(torch.cat([seen(list(range(8))), seen(list(range(8, 16)))]), whole)
