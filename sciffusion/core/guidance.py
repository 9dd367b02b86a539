"""Denoisers that wrap denoisers: guidance and thresholding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import WEAK, Denoiser, Prediction, Rescheduled, State, Wrapper
from sciffusion.core.parameterization import times
from sciffusion.core.schedules import Times


def _inside(t: Times, interval: tuple[float, float], denoiser: Denoiser) -> Tensor:
    """Where sigma/alpha lies in an interval, (B,) or 0-d."""
    level = (-0.5 * denoiser.schedule.log_snr(t.double())).exp()
    return (level >= interval[0]) & (level <= interval[1])


def _check_interval(interval: tuple[float, float]) -> None:
    if not 0 <= interval[0] < interval[1]:
        raise ValueError(f"a guidance interval is (low, high) in sigma/alpha, not {interval}")


def _beyond(good: Prediction, poor: Prediction, scale: float, inside: Tensor) -> Prediction:
    """poor + scale (good - poor) where inside, good elsewhere."""
    w = torch.where(inside, scale, 1.0)
    w = w if w.ndim == 0 else w.view(-1, *[1] * (good.x.ndim - 1))
    x0 = poor.x0 + times(w, good.x0 - poor.x0)
    return good.replace(x0, poor.eps + times(w, good.eps - poor.eps))


class AutoGuided(Wrapper):
    """x0 = weak + scale (x0 - weak): led away from what a weaker version of itself thinks.

    Unlike classifier-free guidance it needs no condition and keeps variety (Karras et al. 2024,
    "Guiding a diffusion model with a bad version of itself"). The weak one may be smaller, trained
    for less time, or an earlier average of the same training.

    Args:
        weak: gives the same kind of answer, for the same noise of the same space; one that was
            trained under another schedule is wrapped in `Rescheduled`.
        scale: 1 is no guidance, and costs nothing.
        interval: guide only where sigma/alpha lies in it.

    Raises:
        TypeError: the two differ in what they give or in what noise is.
        ValueError: an interval that makes no sense.
    """

    def __init__(
        self,
        inner: Denoiser,
        weak: Denoiser,
        scale: float,
        interval: tuple[float, float] = (0.0, float("inf")),
    ) -> None:
        super().__init__(inner)
        _check_interval(interval)
        if weak.gives != inner.gives or type(weak.space) is not type(inner.space):
            raise TypeError(
                f"the weak denoiser gives a {weak.gives} of {type(weak.space).__name__} noise, the "
                f"other a {inner.gives} of {type(inner.space).__name__} noise: take one of its kind"
            )
        ends = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
        same = torch.allclose(weak.schedule.log_snr(ends), inner.schedule.log_snr(ends)) and (
            torch.allclose(weak.schedule.alpha(ends), inner.schedule.alpha(ends))
        )
        self.weak = weak if same else Rescheduled(weak, inner.schedule)
        self.scale, self.interval = scale, interval

    def prepare(self, cond: Cond) -> Cond:
        # What a network stores in `cond` is its own, under names that the other may use too.
        other = self.weak.prepare(cond).structure
        cond = self.inner.prepare(cond)
        return cond.with_structure(**{f"{WEAK}:{k}": v for k, v in other.items()})

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        inside = _inside(t, self.interval, self)
        good: Prediction = self.inner(x_t, t, cond, state)
        if self.scale == 1 or not bool(inside.any()):
            return good
        own = None
        if state is not None:  # its last thoughts are its own
            own = State(state.rng, [], 0, state.memory.setdefault(WEAK, {}))
        mark = f"{WEAK}:"
        told = {k.removeprefix(mark): v for k, v in cond.structure.items() if k.startswith(mark)}
        other = Cond(told, cond.condition, cond.keep) if told else cond
        poor: Prediction = self.weak(x_t, t, other, own)
        if state is not None and own is not None:
            state.nfe += own.nfe
        return _beyond(good, poor, self.scale, inside)


class ClassifierFree(Wrapper):
    """x0 = x0(nothing) + scale (x0(cond) - x0(nothing)) (Ho & Salimans 2022).

    Args:
        scale: 1 is no guidance (and costs nothing), 0 drops the condition.
        interval: guide only where sigma/alpha lies in it (Kynkaanniemi et al. 2024); elsewhere the
            conditional prediction alone is used.
    """

    def __init__(
        self,
        inner: Denoiser,
        scale: float,
        interval: tuple[float, float] = (0.0, float("inf")),
    ) -> None:
        super().__init__(inner)
        _check_interval(interval)
        self.scale, self.interval = scale, interval

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        inside = _inside(t, self.interval, self)
        if self.scale == 1 or not cond.condition or not bool(inside.any()):
            given: Prediction = self.inner(x_t, t, cond, state)
            return given
        n, keep = len(x_t), torch.ones(len(x_t), dtype=torch.bool, device=x_t.device)
        both = Cond.cat([cond.with_keep(keep), cond.with_keep(~keep)])
        t2 = t if t.ndim == 0 else torch.cat([t, t])
        if state is not None:  # one batch of twice the size is two network calls a sample
            state.nfe += 1
        pred: Prediction = self.inner(torch.cat([x_t, x_t]), t2, both, state)
        w = torch.where(inside, self.scale, 1.0)
        w = w if w.ndim == 0 else w.view(-1, *[1] * (x_t.ndim - 1))
        x0 = pred.x0[n:] + times(w, pred.x0[:n] - pred.x0[n:])
        eps = pred.eps[n:] + times(w, pred.eps[:n] - pred.eps[n:])
        log_var = None if pred.log_var is None else pred.log_var[:n]
        c = self.coefficients(t, x_t.ndim)
        return Prediction(x_t, x0, eps, c, self.space, cond, log_var=log_var)


class ClassifierGuided(Wrapper):
    """score + scale grad_x log p(y | x_t) (Dhariwal & Nichol 2021, sec. 4).

    Args:
        log_prob: (x_t, t, cond) -> (B,) log p(y | x_t) of a classifier that knows noisy inputs.
        scale: strength.
    """

    def __init__(
        self, inner: Denoiser, log_prob: Callable[[Tensor, Times, Cond], Tensor], scale: float = 1.0
    ) -> None:
        super().__init__(inner)
        if inner.gives != "mean":
            raise TypeError(
                f"classifier guidance moves the score; this denoiser gives a {inner.gives}"
            )
        self.log_prob, self.scale = log_prob, scale

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        pred: Prediction = self.inner(x_t, t, cond, state)
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.log_prob(x, t, cond).sum(), x)
        # eps = -sigma Sigma score, so a step along the score is Sigma times the gradient.
        # Where no data are left x_t tells no class from another.
        sees = pred.c.alpha > 0
        shift = torch.where(sees, pred.c.sigma, 0.0), pred.c.sigma**2 / pred.c.alpha
        pull = self.scale * self.space.covariance(gradient, cond)
        eps = pred.eps - times(shift[0], pull)
        return pred.replace(pred.x0 + times(torch.where(sees, shift[1], 0.0), pull), eps)


class Clip(Wrapper):
    """x0 clipped to a range: the static thresholding of images."""

    def __init__(self, inner: Denoiser, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__(inner)
        self.low, self.high = low, high

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        pred: Prediction = self.inner(x_t, t, cond, state)
        return pred.replace(pred.x0.clamp(self.low, self.high))


class DynamicThreshold(Wrapper):
    """x0 clipped at its own quantile of |x0| and divided by it (Saharia et al. 2022, sec. 2.3).

    Args:
        quantile: of |x0| within a sample; where it is under 1, plain clipping to [-1, 1].
    """

    def __init__(self, inner: Denoiser, quantile: float = 0.995) -> None:
        super().__init__(inner)
        if not 0 < quantile <= 1:
            raise ValueError(f"a quantile lies in (0, 1], not {quantile}")
        self.quantile = quantile

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        pred: Prediction = self.inner(x_t, t, cond, state)
        s = pred.x0.flatten(1).abs().quantile(self.quantile, dim=1).clamp_min(1)
        s = s.view(-1, *[1] * (x_t.ndim - 1))
        return pred.replace(torch.minimum(torch.maximum(pred.x0, -s), s) / s)
