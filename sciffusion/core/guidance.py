"""Denoisers that wrap denoisers: guidance and thresholding."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, Prediction, State, Wrapper
from sciffusion.core.parameterization import times
from sciffusion.core.schedules import Times


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
        if not 0 <= interval[0] < interval[1]:
            raise ValueError(f"a guidance interval is (low, high) in sigma/alpha, not {interval}")
        self.scale, self.interval = scale, interval

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        low, high = self.interval
        level = (-0.5 * self.schedule.log_snr(t.double())).exp()
        inside = (level >= low) & (level <= high)
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
