"""One-step ODE solvers of dx/dt = alpha' x0 + sigma' eps: Euler, Heun, adaptive Dormand-Prince."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, Prediction, State
from sciffusion.core.integrate import Parts, dormand_prince
from sciffusion.core.parameterization import times
from sciffusion.core.samplers.base import Sampler
from sciffusion.core.times import Grid


class Euler(Sampler):
    """First order; on the EDM and rectified-flow schedules the same as DDIM.

    A step into sigma = 0 goes to alpha x0. There Euler's own step does so too; under VP, whose
    sigma ~ sqrt(t), it would leave half of the last noise in the sample.
    """

    def step(
        self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State
    ) -> Tensor:
        pred = self.predict(denoiser, x, t, cond, state)
        if float(denoiser.schedule.sigma(s)) == 0:
            return times(denoiser.schedule.alpha(s), pred.x0)
        return x + times(s - t, pred.velocity)


class Heun(Sampler):
    """Second order: the mean of the slopes at both ends; into sigma = 0 like Euler (Karras et al.
    2022).
    """

    order = 2

    def step(
        self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State
    ) -> Tensor:
        pred = self.predict(denoiser, x, t, cond, state)
        if float(denoiser.schedule.sigma(s)) == 0:
            return times(denoiser.schedule.alpha(s), pred.x0)
        ahead = x + times(s - t, pred.velocity)
        other = self.predict(denoiser, ahead, s, cond, state).velocity
        return x + times(0.5 * (s - t), pred.velocity + other)


def angle(denoiser: Denoiser, t: Tensor) -> Tensor:
    """phi = atan(sigma / alpha) at time t: 0 is data, pi / 2 is noise."""
    return torch.atan2(denoiser.schedule.sigma(t), denoiser.schedule.alpha(t))


def turning(
    denoiser: Denoiser,
    y: Float[Tensor, "b ..."],
    phi: Float[Tensor, " b"],
    cond: Cond,
    state: State | None,
) -> Float[Tensor, "b ..."]:
    """dy/dphi = cos(phi) eps - sin(phi) x0 of the sample y = x / sqrt(alpha^2 + sigma^2).

    The probability-flow ODE in the angle (Salimans & Ho 2022): regular at both ends of every
    schedule.
    """
    time = denoiser.schedule.t_of_log_snr(-2 * phi.tan().log())
    c = denoiser.coefficients(time, y.ndim)
    pred: Prediction = denoiser(times(c.norm, y), time, cond, state)
    rows = phi.view(-1, *[1] * (y.ndim - 1))
    return times(rows.cos(), pred.eps) - times(rows.sin(), pred.x0)


class DormandPrince(Sampler):
    """Adaptive fifth order, with a step size for each sample.

    It walks the angle phi = atan(sigma / alpha), along which x / sqrt(alpha^2 + sigma^2) moves with
    v (Salimans & Ho 2022): regular at both ends of every schedule. The last stretch, under
    `sigma_min`, is one jump to x0. By default the grid is that single step from noise to data.

    Args:
        rtol, atol: allowed error of a step, relative and absolute, as a root mean square.
        sigma_min: sigma/alpha at which the noise counts as gone.
        max_calls: network calls in one step of the grid before giving up.

    Raises:
        RuntimeError: `max_calls` were not enough.
    """

    order = 5

    def __init__(
        self,
        steps: int = 1,
        grid: Grid | None = None,
        rtol: float = 1e-3,
        atol: float = 1e-3,
        sigma_min: float = 2e-3,
        max_calls: int = 10_000,
    ) -> None:
        super().__init__(steps, grid)
        self.rtol, self.atol, self.sigma_min, self.max_calls = rtol, atol, sigma_min, max_calls

    def step(
        self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State
    ) -> Tensor:
        schedule = denoiser.schedule
        start, end = angle(denoiser, t), angle(denoiser, s)
        floor = torch.atan(torch.tensor(self.sigma_min, dtype=torch.float64))
        last = bool(end < floor)
        end = torch.minimum(torch.maximum(end, floor), start) if last else end

        def slope(parts: Parts, phi: Tensor) -> Parts:
            return (turning(denoiser, parts[0], phi, cond, state),)

        def size(errors: Parts, before: Parts, after: Parts) -> Tensor:
            scale = self.atol + self.rtol * torch.maximum(before[0].abs(), after[0].abs())
            return denoiser.space.mean((errors[0] / scale) ** 2, cond).sqrt()

        y = times(1 / denoiser.coefficients(t, x.ndim).norm, x)
        begin, goal = (v.to(x.device).expand(x.shape[0]) for v in (start, end))
        (y,) = dormand_prince(slope, (y,), begin, goal, size, self.max_calls)
        if last:
            time = schedule.t_of_log_snr(-2 * end.tan().log())
            c = denoiser.coefficients(time, x.ndim)
            pred = self.predict(denoiser, times(c.norm, y), time, cond, state)
            d = denoiser.coefficients(s, x.ndim)
            return times(d.alpha, pred.x0) + times(d.sigma, pred.eps)
        return times(denoiser.coefficients(s, x.ndim).norm, y)
