"""Guidance and thresholding: linear identities, the exact conditional, calls that are counted."""

import pytest
import torch
from torch import nn

from sciffusion.core.analytic import GaussianMixture
from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, FunctionDenoiser, NetworkDenoiser, State
from sciffusion.core.guidance import (
    AutoGuided,
    ClassifierFree,
    ClassifierGuided,
    Clip,
    DynamicThreshold,
)
from sciffusion.core.parameterization import X0
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import DDIM, Heun
from sciffusion.core.schedules import EDM, VP, RectifiedFlow
from sciffusion.core.spaces import ZeroCoM

T = torch.tensor(0.4, dtype=torch.float64)


class TwoClasses(Denoiser):
    """Exact: one Gaussian a class; the mixture of both where the condition is dropped."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule
        means = torch.tensor([[-1.0, 0.5], [2.0, -0.3]])
        covs = torch.tensor([[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.5]]])
        self.parts = [GaussianMixture(means[i : i + 1], covs[i : i + 1], schedule) for i in (0, 1)]
        self.both = GaussianMixture(means, covs, schedule, torch.tensor([0.3, 0.7]))
        self.space = self.both.space

    def predict(self, x_t, t, cond, state):
        pred = self.both(x_t, t)
        label, keep = cond.condition.get("label"), cond.keep
        if label is None:
            return pred
        keep = torch.ones(len(x_t), dtype=torch.bool) if keep is None else keep
        x0, eps = pred.x0, pred.eps
        for i, part in enumerate(self.parts):
            mine, given = (keep & (label == i))[:, None], part(x_t, t)
            x0, eps = torch.where(mine, given.x0, x0), torch.where(mine, given.eps, eps)
        return pred.replace(x0, eps)

    def log_prob(self, i):
        """log p(y = i | x_t) of the mixture."""
        weight = self.both.log_weights[i]
        return lambda x, t, cond: weight + self.parts[i].log_prob(x, t) - self.both.log_prob(x, t)


@pytest.fixture
def x():
    return 1.5 * torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


LABEL = Cond(condition={"label": torch.tensor([0, 1, 0, 1, 1, 0])})


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 7.5])
def test_classifier_free_is_linear(scale, x):
    inner = TwoClasses(VP())
    given, nothing = inner(x, T, LABEL), inner(x, T)
    pred = ClassifierFree(inner, scale)(x, T, LABEL)
    for name in ("x0", "eps", "v", "velocity", "score"):
        a, b = getattr(given, name), getattr(nothing, name)
        assert torch.allclose(getattr(pred, name), b + scale * (a - b)), name
    each = ClassifierFree(inner, scale)(x, T.expand(6), LABEL)
    assert torch.allclose(each.x0, pred.x0)


def calls(denoiser, cond, t=T):
    state = State(Rng(0, torch.arange(6)))
    denoiser(torch.zeros(6, 2, dtype=torch.float64), t, cond, state)
    return state.nfe


def test_what_guidance_costs():
    inner = TwoClasses(EDM(10.0))
    assert calls(ClassifierFree(inner, 1.0), LABEL) == 1
    assert calls(ClassifierFree(inner, 3.0), LABEL) == 2
    assert calls(ClassifierFree(inner, 3.0), Cond()) == 1
    assert calls(Clip(ClassifierFree(inner, 3.0)), LABEL) == 2
    assert calls(ClassifierFree(inner, 3.0, (5.0, 6.0)), LABEL) == 1
    out = Heun(5)(ClassifierFree(inner, 3.0), (2,), LABEL, n=6)
    assert out.nfe == 18


def test_interval(x):
    """Outside it, exactly the conditional prediction, for one time and for one a sample."""
    inner = TwoClasses(EDM(10.0))
    guided, free = ClassifierFree(inner, 4.0, (1.0, 3.0)), ClassifierFree(inner, 4.0)
    t = torch.tensor([0.05, 0.2, 0.5, 0.11, 0.29, 0.9], dtype=torch.float64)
    inside = (t >= 0.1) & (t <= 0.3)
    pred = guided(x, t, LABEL)
    assert torch.allclose(pred.x0[inside], free(x, t, LABEL).x0[inside])
    assert torch.allclose(pred.x0[~inside], inner(x, t, LABEL).x0[~inside])
    for i in range(6):
        one = guided(x, t[i], LABEL).x0[i]
        assert torch.allclose(one, pred.x0[i])
    with pytest.raises(ValueError, match="interval"):
        ClassifierFree(inner, 2.0, (3.0, 1.0))


@pytest.mark.parametrize("make", [VP, EDM, RectifiedFlow])
@pytest.mark.parametrize("label", [0, 1])
def test_classifier_guidance_is_the_exact_conditional(make, label, x):
    inner = TwoClasses(make())
    guided = ClassifierGuided(inner, inner.log_prob(label))
    pred, exact = guided(x, T), inner.parts[label](x, T)
    for name in ("x0", "eps", "v", "velocity", "score"):
        assert torch.allclose(getattr(pred, name), getattr(exact, name), rtol=1e-7, atol=1e-8), name


def test_classifier_guided_samples_are_of_the_class():
    """From pure noise too, where the schedule has no data left."""
    for make in (VP, RectifiedFlow):
        inner = TwoClasses(make())
        out = DDIM(100)(ClassifierGuided(inner, inner.log_prob(1)), (2,), n=3000)
        mean = torch.tensor([2.0, -0.3])
        assert torch.allclose(out.x.mean(0), mean, atol=0.06)
        cov = torch.tensor([[0.1, 0.0], [0.0, 0.5]])
        assert torch.allclose(out.x.T.cov(), cov, atol=0.06)


def test_classifier_guidance_needs_a_score():
    inner = FunctionDenoiser(lambda x, t, c: x, VP(), gives="velocity")
    with pytest.raises(TypeError, match="velocity"):
        ClassifierGuided(inner, lambda x, t, c: x.sum(1))


def test_clip_and_threshold_keep_x_t(x):
    inner = FunctionDenoiser(lambda x, t, c: 3 * x, VP())
    for wrap in (Clip, DynamicThreshold):
        pred = wrap(inner)(x, T)
        assert pred.x0.abs().max() <= 1
        back = pred.c.alpha * pred.x0 + pred.c.sigma * pred.eps
        assert torch.allclose(back, x)
    assert torch.allclose(Clip(inner)(x, T).x0, (3 * x).clamp(-1, 1))


def test_dynamic_threshold_by_hand():
    x0 = torch.tensor([[0.5, -0.2, 0.9, 0.1, 0.0], [4.0, -2.0, 1.0, 0.5, 0.0]]).double()
    inner = FunctionDenoiser(lambda x, t, c: x0, VP())
    pred = DynamicThreshold(inner, quantile=0.75)(torch.zeros(2, 5).double(), T)
    assert torch.allclose(pred.x0[0], x0[0])  # within [-1, 1]: untouched
    assert torch.allclose(pred.x0[1], torch.tensor([1.0, -1.0, 0.5, 0.25, 0.0]).double())


def test_autoguidance_is_linear_and_needs_no_condition(x):
    inner = TwoClasses(EDM(10.0))
    weak = GaussianMixture(torch.zeros(1, 2), 4 * torch.eye(2)[None], EDM(10.0))
    good, poor = inner(x, T), weak(x, T)
    pred = AutoGuided(inner, weak, 2.5)(x, T)
    for name in ("x0", "eps", "v", "velocity", "score"):
        a, b = getattr(good, name), getattr(poor, name)
        assert torch.allclose(getattr(pred, name), b + 2.5 * (a - b)), name
    assert torch.equal(AutoGuided(inner, weak, 1.0)(x, T).x0, good.x0)
    assert calls(AutoGuided(inner, weak, 2.5), Cond()) == 2
    assert calls(AutoGuided(inner, weak, 2.5, (5.0, 6.0)), Cond()) == 1


def test_autoguidance_and_classifier_free_compose(x):
    inner = TwoClasses(VP())
    weak = TwoClasses(VP())
    both = ClassifierFree(AutoGuided(inner, weak, 2.0), 3.0)
    assert torch.allclose(both(x, T, LABEL).x0, ClassifierFree(inner, 3.0)(x, T, LABEL).x0)


def test_the_weak_one_may_come_from_another_schedule(x):
    """It is asked at the same noise level, whatever it calls that."""
    inner = TwoClasses(VP())
    weak, same = (GaussianMixture(torch.ones(1, 2), torch.eye(2)[None], s()) for s in (EDM, VP))
    other = AutoGuided(inner, weak, 2.0)(x, T)
    assert torch.allclose(other.x0, AutoGuided(inner, same, 2.0)(x, T).x0, rtol=1e-6)
    alien = FunctionDenoiser(lambda x, t, c: x, VP(), gives="velocity")
    with pytest.raises(TypeError, match="velocity"):
        AutoGuided(inner, alien, 2.0)
    with pytest.raises(TypeError, match="ZeroCoM"):
        AutoGuided(inner, FunctionDenoiser(lambda x, t, c: x, VP(), ZeroCoM()), 2.0)


class Remembers(nn.Module):
    """Answers its last thought plus a number of its own, and stores one in `prepare`."""

    self_conditioned = True

    def __init__(self, own):
        super().__init__()
        self.own = nn.Parameter(torch.tensor(own))

    def prepare(self, cond):
        return cond.with_structure(stored=self.own.detach().expand(6))

    def forward(self, x, log_snr, cond):
        assert (cond.structure["stored"] == self.own).all()
        return cond.structure.get("previous", torch.zeros_like(x)) + self.own


def test_each_has_a_memory_of_its_own():
    inner, weak = (NetworkDenoiser(Remembers(own), VP(), X0()) for own in (1.0, 10.0))
    guided = AutoGuided(inner, weak, 2.0)
    out = DDIM(3)(guided, (2,), Cond(condition={"label": torch.zeros(6)}), n=6)
    # After three calls: 3 and 30, so 30 + 2 (3 - 30).
    assert torch.allclose(out.x, torch.full((6, 2), -24.0))
