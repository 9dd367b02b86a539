"""One-step ODE solvers of dx/dt = alpha' x0 + sigma' eps: Euler, Heun, adaptive Dormand-Prince."""

from __future__ import annotations

import torch
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, State
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


# Dormand & Prince 1980, RK5(4)7M: nodes, stages, and the fifth minus the fourth order weights.
_C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_A: tuple[tuple[float, ...], ...] = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_E = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


class DormandPrince(Sampler):
    """Adaptive fifth order, with a step size for each sample.

    It walks the angle phi = atan(sigma / alpha), along which x / sqrt(alpha^2 + sigma^2) moves with
    v (Salimans & Ho 2022): regular at both ends of every schedule. The last stretch, under
    `sigma_min`, is one jump to x0. By default the grid is that single step from noise to data.
    `walk` also goes up, from data to noise (`latent`).

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
        start, end = (torch.atan2(schedule.sigma(v), schedule.alpha(v)) for v in (t, s))
        floor = torch.atan(torch.tensor(self.sigma_min, dtype=torch.float64))
        last = bool(end < floor)
        end = torch.minimum(torch.maximum(end, floor), start) if last else end
        y = times(1 / denoiser.coefficients(t, x.ndim).norm, x)
        y = self.walk(denoiser, y, start, end, cond, state)
        d = denoiser.coefficients(s, x.ndim)
        if last:
            time = schedule.t_of_log_snr(-2 * end.tan().log())
            c = denoiser.coefficients(time, x.ndim)
            pred = self.predict(denoiser, times(c.norm, y), time, cond, state)
            return times(d.alpha, pred.x0) + times(d.sigma, pred.eps)
        return times(d.norm, y)

    def walk(
        self,
        denoiser: Denoiser,
        y: Tensor,
        start: Tensor,
        end: Tensor,
        cond: Cond,
        state: State,
    ) -> Tensor:
        """y = x / sqrt(alpha^2 + sigma^2) from the angle `start` to `end` (0-d), down or up.

        Raises:
            RuntimeError: `max_calls` were not enough.
        """
        schedule = denoiser.schedule

        def rows(v: Tensor) -> Tensor:
            return v.view(-1, *[1] * (y.ndim - 1))

        def slope(y: Tensor, phi: Tensor) -> Tensor:
            """v of the normalised sample y at angle phi (B,)."""
            time = schedule.t_of_log_snr(-2 * phi.tan().log())
            c = denoiser.coefficients(time, y.ndim)
            pred = self.predict(denoiser, times(c.norm, y), time, cond, state)
            return times(rows(phi).cos(), pred.eps) - times(rows(phi).sin(), pred.x0)

        phi = start.to(y.device).expand(len(y)).clone()
        goal = end.to(y.device).expand(len(y))
        way = 1.0 if bool(end > start) else -1.0
        h = (goal - phi) * 0.05
        first = slope(y, phi)
        calls = state.nfe
        while bool((way * (goal - phi) > 0).any()):
            if state.nfe - calls > self.max_calls:
                raise RuntimeError(f"dopri5: {self.max_calls} calls were not enough; raise rtol")
            h = way * torch.minimum(way * h, way * (goal - phi))  # not beyond the goal
            k = [first]
            for c_i, a_i in zip(_C[1:], _A[1:], strict=True):
                move = sum((a * k_j for a, k_j in zip(a_i, k, strict=True)), torch.zeros_like(y))
                ahead = y + times(rows(h), move)
                k.append(slope(ahead, phi + c_i * h))
            error = times(rows(h), sum((e * k_j for e, k_j in zip(_E, k, strict=True)), 0 * y))
            scale = self.atol + self.rtol * torch.maximum(y.abs(), ahead.abs())
            norm = denoiser.space.mean((error / scale) ** 2, cond).double().sqrt()
            take = (norm <= 1) & (way * (goal - phi) > 0)
            y = torch.where(rows(take), ahead, y)
            first = torch.where(rows(take), k[-1], first)  # the last stage is the next one's first
            phi = torch.where(take, phi + h, phi)
            phi = torch.where(take & ((phi - goal).abs() < 1e-12), goal, phi)
            h = h * (0.9 * norm.clamp_min(1e-10) ** -0.2).clamp(0.2, 5.0)
        return y
