"""Multistep exponential integrators: DPM-Solver++ 2M and 3M and their stochastic form.

With l = log(alpha / sigma), h = l_s - l_t, the probability-flow ODE is solved exactly but for x0,
x_s = (sigma_s / sigma_t) x_t + sigma_s int e^l x0(l) dl, and x0 is extrapolated from earlier steps
(Lu et al. 2022, "DPM-Solver++", alg. 2 and eq. 9). At infinite h (from no data, or to no noise) the
formulae fall back to first order by themselves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, Prediction, State
from sciffusion.core.parameterization import times
from sciffusion.core.samplers.base import Sampler
from sciffusion.core.times import Grid, UniformLogSNR


def _half_log_snr(denoiser: Denoiser, t: Tensor) -> float:
    return 0.5 * float(denoiser.schedule.log_snr(t))


class DPMSolverPP(Sampler):
    """DPM-Solver++ multistep, deterministic.

    Args:
        order: 2 (the midpoint form, 2M) or 3 (3M, whose first step costs one call more so that the
            start does not spoil the order). The second derivative is twice the second divided
            difference; without that 2, as the published code and its copies have it, 3M measures
            second order.
    """

    def __init__(self, steps: int = 20, grid: Grid | None = None, order: int = 2) -> None:
        super().__init__(steps, grid)
        if order not in (1, 2, 3):
            raise ValueError(f"DPM-Solver++ has order 1, 2 or 3, not {order}")
        self.order = order

    def default_grid(self) -> Grid:
        return UniformLogSNR()

    def step(
        self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State
    ) -> Tensor:
        pred = self.predict(denoiser, x, t, cond, state)
        state.history.insert(0, (t, pred))
        del state.history[self.order :]
        lt, ls = _half_log_snr(denoiser, t), _half_log_snr(denoiser, s)
        h = torch.tensor(ls - lt, dtype=torch.float64)
        ct, cs = denoiser.coefficients(t, x.ndim), denoiser.coefficients(s, x.ndim)
        # alpha_s (1 - e^-h), the weight of a constant x0
        weight = cs.alpha * -torch.expm1(-h)
        result = times(cs.sigma / ct.sigma, x) + times(weight, pred.x0)
        if not bool(h.isfinite()):
            return result
        slopes = self._slopes(denoiser, state, h)
        if not slopes:
            if self.order < 3:
                return result
            return self._start(denoiser, x, lt, float(h), pred, s, cond, state)
        first = cs.alpha * ((torch.expm1(-h)) / h + 1)
        if len(slopes) == 1:
            # The paper's 2M evaluates the extrapolated x0 at the middle of the step.
            return result + times(0.5 * weight, slopes[0])
        second = cs.alpha * ((torch.expm1(-h) + h) / h**2 - 0.5)
        return result + times(first, slopes[0]) - times(second, slopes[1])

    def _slopes(self, denoiser: Denoiser, state: State, h: Tensor) -> list[Tensor]:
        """h and h^2 times the first and second derivative of x0 in l, by divided differences."""
        points = [(_half_log_snr(denoiser, t), p.x0) for t, p in state.history]
        points = [p for p in points if abs(p[0]) != float("inf")]
        if len(points) < 2:
            return []
        (l0, m0), (l1, m1) = points[:2]
        r0 = (l0 - l1) / float(h)
        d0 = (m0 - m1) / r0
        if len(points) < 3:
            return [d0]
        l2, m2 = points[2]
        r1 = (l1 - l2) / float(h)
        d1 = (m1 - m2) / r1
        return [d0 + r0 / (r0 + r1) * (d0 - d1), 2 * (d0 - d1) / (r0 + r1)]

    def _start(
        self,
        denoiser: Denoiser,
        x: Tensor,
        lt: float,
        h: float,
        pred: Prediction,
        s: Tensor,
        cond: Cond,
        state: State,
    ) -> Tensor:
        """DPM-Solver++ 2S: x0 at the middle of the first step, by one more call."""
        middle = denoiser.schedule.t_of_log_snr(torch.tensor(2 * lt + h, dtype=torch.float64))
        cm, cs = denoiser.coefficients(middle, x.ndim), denoiser.coefficients(s, x.ndim)
        half, whole = (torch.tensor(-v, dtype=torch.float64).expm1() for v in (0.5 * h, h))
        ahead = times(cm.sigma / pred.c.sigma, x) - times(cm.alpha * half, pred.x0)
        x0 = self.predict(denoiser, ahead, middle, cond, state).x0
        return times(cs.sigma / pred.c.sigma, x) - times(cs.alpha * whole, x0)


class SDEDPMSolverPP(Sampler):
    """SDE-DPM-Solver++ 2M (Lu et al. 2022, app. A): the reverse SDE with x0 extrapolated.

    Weak order 2, although old noise enters the extrapolation: along the reverse SDE the posterior
    mean is a martingale, so its last increment has just the covariance that a step with constant x0
    leaves out.

    Args:
        noise_scale: of the noise that is stirred in; less than 1 is a lower temperature, whose law
            is not known.
    """

    order = 2
    stochastic = True
    needs = "score"

    def __init__(self, steps: int = 50, grid: Grid | None = None, noise_scale: float = 1.0) -> None:
        super().__init__(steps, grid)
        self.noise_scale = noise_scale

    def default_grid(self) -> Grid:
        return UniformLogSNR()

    def step(
        self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State
    ) -> Tensor:
        pred = self.predict(denoiser, x, t, cond, state)
        lt, ls = _half_log_snr(denoiser, t), _half_log_snr(denoiser, s)
        h = torch.tensor(ls - lt, dtype=torch.float64)
        ct, cs = denoiser.coefficients(t, x.ndim), denoiser.coefficients(s, x.ndim)
        weight = cs.alpha * -torch.expm1(-2 * h)
        mean = times(cs.sigma / ct.sigma * (-h).exp(), x) + times(weight, pred.x0)
        if state.history and bool(h.isfinite()):
            before, old = state.history[0]
            r = (lt - _half_log_snr(denoiser, before)) / float(h)
            if r != float("inf"):
                mean = mean + times(0.5 * weight / r, pred.x0 - old.x0)
        state.history[:] = [(t, pred)]
        if float(cs.sigma) == 0:
            return mean
        z = self.noise(denoiser, x, "step", cond, state)
        return mean + times(self.noise_scale * cs.sigma * (-torch.expm1(-2 * h)).sqrt(), z)
