"""Where in [0, 1] to train and where to step: distributions of t and grids of t.

A distribution is its quantile function, so it can be fed independent or stratified uniforms; a grid
is a float64 tensor that falls from 1 to 0, built for any number of steps under any schedule.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.rng import Rng
from sciffusion.core.schedules import Schedule, Times


class TimeDistribution(ABC):
    """A distribution of training times."""

    @abstractmethod
    def quantile(self, u: Float[Tensor, " b"], schedule: Schedule) -> Times:
        """The time below which a share u of the draws falls."""

    def sample(self, rng: Rng, schedule: Schedule) -> Times:
        """(B,) float64 times: a function of (seed, step, place in the global batch)."""
        return self.quantile(rng.uniform("time"), schedule)


class Uniform(TimeDistribution):
    """Uniform on (t_min, 1)."""

    def __init__(self, t_min: float = 0.0) -> None:
        self.t_min = t_min

    def quantile(self, u: Float[Tensor, " b"], schedule: Schedule) -> Times:
        return self.t_min + (1 - self.t_min) * u


class Discrete(TimeDistribution):
    """Uniform on 1/T, ..., 1: DDPM's steps."""

    def __init__(self, steps: int = 1000) -> None:
        self.steps = steps

    def quantile(self, u: Float[Tensor, " b"], schedule: Schedule) -> Times:
        return (u * self.steps).ceil().clamp_min(1) / self.steps


class LogNormal(TimeDistribution):
    """ln(sigma / alpha) normal (Karras et al. 2022: -1.2, 1.2; AlphaFold 3 adds ln sigma_data).

    Args:
        mean, std: of ln(sigma / alpha / sigma_data).
        sigma_data: 1, or the data's, so that one mean suits data of any size.
    """

    def __init__(self, mean: float = -1.2, std: float = 1.2, sigma_data: float = 1.0) -> None:
        self.mean, self.std = mean + math.log(sigma_data), std

    def quantile(self, u: Float[Tensor, " b"], schedule: Schedule) -> Times:
        return schedule.t_of_log_snr(-2 * (self.mean + self.std * torch.special.ndtri(u)))


class LogitNormal(TimeDistribution):
    """logit(t) normal (Esser et al. 2024)."""

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        self.mean, self.std = mean, std

    def quantile(self, u: Float[Tensor, " b"], schedule: Schedule) -> Times:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))


class BetaMixture(TimeDistribution):
    """1 - t ~ sum_k w_k Beta(a_k, b_k), e.g. Proteina's 0.98 Beta(1.9, 1) + 0.02 U.

    Args:
        components: (weight, a, b) each, a and b >= 0.5; the weights sum to 1.
    """

    def __init__(
        self, components: Sequence[Sequence[float]] = ((0.98, 1.9, 1), (0.02, 1, 1))
    ) -> None:
        weights = [float(w) for w, _, _ in components]
        if abs(sum(weights) - 1) > 1e-9 or min(weights) < 0:
            raise ValueError(f"the weights of a Beta mixture must sum to 1: {weights}")
        if any(min(a, b) < 0.5 for _, a, b in components):
            raise ValueError("a Beta mixture needs a >= 0.5 and b >= 0.5")
        # x = sin^2(theta) takes the end-point singularities out of the density.
        theta = torch.linspace(0, math.pi / 2, 8193, dtype=torch.float64)
        self._theta, cdf = theta, torch.zeros_like(theta)
        for w, a, b in components:
            density = theta.sin() ** (2 * a - 1) * theta.cos() ** (2 * b - 1)
            total = torch.cat([theta.new_zeros(1), torch.cumulative_trapezoid(density, theta)])
            cdf += w * total / total[-1]
        self._cdf = cdf

    def quantile(self, u: Float[Tensor, " b"], schedule: Schedule) -> Times:
        theta, cdf = self._theta.to(u.device), self._cdf.to(u.device)
        # t = 1 - x falls with x, so the quantile of t at u is that of x at 1 - u.
        target = (1 - u).contiguous()
        k = torch.searchsorted(cdf, target).clamp(1, len(cdf) - 1)
        share = (target - cdf[k - 1]) / (cdf[k] - cdf[k - 1]).clamp_min(1e-300)
        return (theta[k - 1] + share * (theta[k] - theta[k - 1])).cos() ** 2


class Stratified(TimeDistribution):
    """Any distribution, one draw in each 1/B of its mass (Kingma et al. 2021): less variance."""

    def __init__(self, inner: TimeDistribution) -> None:
        self.inner = inner

    def quantile(self, u: Float[Tensor, " b"], schedule: Schedule) -> Times:
        return self.inner.quantile(u, schedule)

    def sample(self, rng: Rng, schedule: Schedule) -> Times:
        total = rng.total or len(rng.index)
        u = (rng.uniform("time", shared=True) + rng.index.double() / total) % 1
        return self.inner.quantile(u.clamp(2.0**-33, 1 - 2.0**-33), schedule)


class Grid(ABC):
    """Times to step through."""

    @abstractmethod
    def times(self, steps: int, schedule: Schedule) -> Float[Tensor, " steps_and_one"]:
        """steps + 1 times from the noise (t = 1) to the data (t = 0), float64."""

    def __call__(self, steps: int, schedule: Schedule) -> Float[Tensor, " steps_and_one"]:
        """The grid, checked."""
        if steps < 1:
            raise ValueError(f"a sampling grid needs at least 1 step, not {steps}")
        t = self.times(steps, schedule)
        if not bool((t[1:] < t[:-1]).all()):
            raise ValueError(
                f"{type(self).__name__} with {steps} steps does not fall under "
                f"{type(schedule).__name__}: take fewer steps, or noise levels that it reaches"
            )
        return t


class UniformGrid(Grid):
    """Equal steps in t; on a table whose T they divide, DDPM's own ("trailing") subsequence."""

    def times(self, steps: int, schedule: Schedule) -> Float[Tensor, " steps_and_one"]:
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


class Trailing(Grid):
    """Equal steps rounded to the entries of a T-step table (Lin et al. 2024); T need not divide."""

    def __init__(self, table_steps: int = 1000) -> None:
        self.table_steps = table_steps

    def times(self, steps: int, schedule: Schedule) -> Float[Tensor, " steps_and_one"]:
        t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        return (t * self.table_steps).round() / self.table_steps


class Quadratic(Grid):
    """t = (i / N)^2: finer towards the data (Song et al. 2021, DDIM)."""

    def times(self, steps: int, schedule: Schedule) -> Float[Tensor, " steps_and_one"]:
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64) ** 2


def _warped(
    steps: int,
    schedule: Schedule,
    low: float,
    high: float,
    warp: Callable[[float], float],
    unwarp: Callable[[Tensor], Tensor],
) -> Float[Tensor, " steps_and_one"]:
    """Times equally spaced in warp(log-SNR) from `low` to `high`, then t = 0; starts at exactly 1.

    Where the schedule itself keeps noise above `high` at t = 0, its own end is the last level.
    """
    end = float(schedule.log_snr(torch.zeros((), dtype=torch.float64)))
    points = steps if end > high else steps + 1
    level = torch.linspace(warp(low), warp(min(high, end)), points, dtype=torch.float64)
    t = schedule.t_of_log_snr(unwarp(level))
    return torch.cat([t.new_ones(1), t[1:steps], t.new_zeros(1)])


def _start(schedule: Schedule, log_snr_min: float) -> float:
    """log-SNR at t = 1, or `log_snr_min` where that is lower (no data left at all)."""
    return max(float(schedule.log_snr(torch.ones((), dtype=torch.float64))), log_snr_min)


class Karras(Grid):
    """sigma/alpha warped by rho from its maximum to sigma_min, then 0 (Karras et al. 2022, eq. 5).

    Args:
        sigma_min: the last noise level before 0, in units of sigma/alpha.
        rho: larger spends more steps at low noise.
        sigma_max: where the warp begins; by default, and at most, the schedule's own sigma/alpha
            at t = 1.
    """

    def __init__(
        self, sigma_min: float = 0.002, rho: float = 7.0, sigma_max: float | None = None
    ) -> None:
        for name, value in (("sigma_min", sigma_min), ("rho", rho), ("sigma_max", sigma_max)):
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value} must be more than 0")
        self.sigma_min, self.rho, self.sigma_max = sigma_min, rho, sigma_max

    def times(self, steps: int, schedule: Schedule) -> Float[Tensor, " steps_and_one"]:
        start = _start(schedule, -10.0)
        if self.sigma_max is not None:
            start = max(start, -2 * math.log(self.sigma_max))
        return _warped(
            steps,
            schedule,
            start,
            -2 * math.log(self.sigma_min),
            lambda log_snr: math.exp(-0.5 * log_snr / self.rho),
            lambda level: -2 * self.rho * level.log(),
        )


class Levels(Grid):
    """Noise levels of one's own between the start (t = 1) and the data.

    Args:
        levels: sigma/alpha, falling; n of them make n + 1 steps.
    """

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels = [float(v) for v in levels]
        if any(v <= 0 for v in self.levels):
            raise ValueError(f"noise levels are sigma/alpha > 0, not {self.levels}")

    def times(self, steps: int, schedule: Schedule) -> Float[Tensor, " steps_and_one"]:
        if steps != len(self.levels) + 1:
            raise ValueError(f"{steps} steps have {steps - 1} levels between, not {self.levels}")
        t = schedule.t_of_log_snr(-2 * torch.tensor(self.levels, dtype=torch.float64).log())
        return torch.cat([t.new_ones(1), t, t.new_zeros(1)])


class Between(Grid):
    """For jumps: the start, then the middles of steps - 1 equal parts of ln(sigma/alpha), then 0.

    Where a consistency network gains from another look is around the size of the data, whatever the
    schedule starts from. The level of two steps is sqrt(low high).

    Args:
        low, high: sigma/alpha, in units of sigma_data.
        sigma_data: standard deviation of the data.
    """

    def __init__(self, low: float = 0.3, high: float = 10.0, sigma_data: float = 1.0) -> None:
        if not 0 < low < high:
            raise ValueError(f"levels lie between 0 < low < high, not {low} and {high}")
        if not sigma_data > 0:
            raise ValueError(f"sigma_data={sigma_data} must be more than 0")
        self.low, self.high = low * sigma_data, high * sigma_data

    def times(self, steps: int, schedule: Schedule) -> Float[Tensor, " steps_and_one"]:
        start = math.exp(-0.5 * _start(schedule, -2 * math.log(self.high)))
        low, high = math.log(self.low), math.log(max(self.low, min(self.high, start)))
        middle = torch.linspace(1, 0, 2 * steps - 1, dtype=torch.float64)[1::2]
        t = schedule.t_of_log_snr(-2 * (low + (high - low) * middle))
        return torch.cat([t.new_ones(1), t, t.new_zeros(1)])


class UniformLogSNR(Grid):
    """Equal steps in log-SNR up to `log_snr_max`, then to the data (Lu et al. 2022)."""

    def __init__(self, log_snr_max: float = 10.0, log_snr_min: float = -10.0) -> None:
        self.log_snr_max, self.log_snr_min = log_snr_max, log_snr_min

    def times(self, steps: int, schedule: Schedule) -> Float[Tensor, " steps_and_one"]:
        start = _start(schedule, self.log_snr_min)
        return _warped(steps, schedule, start, self.log_snr_max, lambda v: v, lambda v: v)
