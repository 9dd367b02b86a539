"""Schedules: how much data and how much noise x_t = alpha(t) x_0 + sigma(t) z holds at time t.

t = 0 is data and t = 1 is noise; log-SNR = log(alpha^2 / sigma^2) falls strictly. All functions
take a float64 tensor of any shape and answer in float64: coefficients are cast only where they meet
the data, because a table in half precision silently loses noise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

Times = Float[Tensor, "*b"]


class Schedule(ABC):
    """alpha(t), sigma(t), their derivatives, log_snr(t) and its inverse."""

    bounded = True
    """False where the formulae go on beyond t = 1, so that a sampler may add noise there."""

    @abstractmethod
    def alpha(self, t: Times) -> Times:
        """The scale of the data."""

    @abstractmethod
    def sigma(self, t: Times) -> Times:
        """The scale of the noise."""

    @abstractmethod
    def d_alpha(self, t: Times) -> Times:
        """d alpha / dt."""

    @abstractmethod
    def d_sigma(self, t: Times) -> Times:
        """d sigma / dt."""

    @abstractmethod
    def t_of_log_snr(self, log_snr: Times) -> Times:
        """The inverse of `log_snr`; beyond its range, the nearer end."""

    def log_snr(self, t: Times) -> Times:
        """log(alpha^2 / sigma^2); +inf where there is no noise, -inf where there is no data."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())


class VP(Schedule):
    """Variance-preserving SDE with linear beta(t) (Song et al. 2021, eq. 32-33).

    alpha = exp(-B/2), sigma^2 = 1 - exp(-B), B(t) = beta_min t + (beta_max - beta_min) t^2 / 2.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        if not 0 < beta_min <= beta_max:
            raise ValueError(f"VP needs 0 < beta_min <= beta_max, not {beta_min} and {beta_max}")
        self.beta_min, self.beta_max = beta_min, beta_max

    def _integral(self, t: Times) -> Times:
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def _beta(self, t: Times) -> Times:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def alpha(self, t: Times) -> Times:
        return (-0.5 * self._integral(t)).exp()

    def sigma(self, t: Times) -> Times:
        return (-(-self._integral(t)).expm1()).sqrt()

    def d_alpha(self, t: Times) -> Times:
        return -0.5 * self._beta(t) * self.alpha(t)

    def d_sigma(self, t: Times) -> Times:
        return 0.5 * self._beta(t) * (-self._integral(t)).exp() / self.sigma(t)

    def log_snr(self, t: Times) -> Times:
        return -self._integral(t).expm1().log()

    def t_of_log_snr(self, log_snr: Times) -> Times:
        integral = torch.logaddexp(-log_snr, torch.zeros_like(log_snr))
        slope = self.beta_max - self.beta_min
        t = 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * slope * integral).sqrt())
        return t.clamp(0, 1)


class VE(Schedule):
    """Variance-exploding: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t (Song et al. 21).

    sigma(0) = sigma_min is not zero: samplers end with one more call for the denoised mean.
    """

    bounded = False

    def __init__(self, sigma_min: float = 0.02, sigma_max: float = 100.0) -> None:
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"VE needs 0 < sigma_min < sigma_max, not {sigma_min}, {sigma_max}")
        self.sigma_min, self.rate = sigma_min, math.log(sigma_max / sigma_min)

    def alpha(self, t: Times) -> Times:
        return torch.ones_like(t)

    def sigma(self, t: Times) -> Times:
        return self.sigma_min * (self.rate * t).exp()

    def d_alpha(self, t: Times) -> Times:
        return torch.zeros_like(t)

    def d_sigma(self, t: Times) -> Times:
        return self.rate * self.sigma(t)

    def log_snr(self, t: Times) -> Times:
        return -2 * (math.log(self.sigma_min) + self.rate * t)

    def t_of_log_snr(self, log_snr: Times) -> Times:
        return ((-0.5 * log_snr - math.log(self.sigma_min)) / self.rate).clamp_min(0)


class EDM(Schedule):
    """sigma = sigma_max t, alpha = 1: Karras et al. 2022's sigma(t) = t, in units of sigma_max.

    Where to put the steps is the grid's affair (`times.Karras`).
    """

    bounded = False

    def __init__(self, sigma_max: float = 80.0) -> None:
        if not sigma_max > 0:
            raise ValueError(f"EDM needs sigma_max > 0, not {sigma_max}")
        self.sigma_max = sigma_max

    def alpha(self, t: Times) -> Times:
        return torch.ones_like(t)

    def sigma(self, t: Times) -> Times:
        return self.sigma_max * t

    def d_alpha(self, t: Times) -> Times:
        return torch.zeros_like(t)

    def d_sigma(self, t: Times) -> Times:
        return torch.full_like(t, self.sigma_max)

    def t_of_log_snr(self, log_snr: Times) -> Times:
        return (-0.5 * log_snr).exp() / self.sigma_max


class RectifiedFlow(Schedule):
    """alpha = 1 - t, sigma = t: flow matching's straight path (Lipman et al., Liu et al. 2023)."""

    def alpha(self, t: Times) -> Times:
        return 1 - t

    def sigma(self, t: Times) -> Times:
        return t

    def d_alpha(self, t: Times) -> Times:
        return -torch.ones_like(t)

    def d_sigma(self, t: Times) -> Times:
        return torch.ones_like(t)

    def t_of_log_snr(self, log_snr: Times) -> Times:
        return torch.sigmoid(-0.5 * log_snr)


def check_schedule(schedule: Schedule, points: int = 257) -> None:
    """Refuse a schedule that samplers cannot trust.

    Raises:
        TypeError: not a `Schedule`, or a learned one: its coefficients would move while EMA,
            weightings and grids hold them fixed.
        ValueError: alpha or sigma not finite or negative, log-SNR not strictly falling, or
            `t_of_log_snr` not its inverse; the message says which and where.
    """
    if not isinstance(schedule, Schedule):
        raise TypeError(f"expected a Schedule, not {type(schedule).__name__}")
    if isinstance(schedule, nn.Module) and any(p.requires_grad for p in schedule.parameters()):
        raise TypeError(
            f"{type(schedule).__name__} has learned parameters: learned schedules are not "
            "supported, because grids, weightings and EMA take the schedule as fixed"
        )
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    name = type(schedule).__name__
    for label, value in (("alpha", schedule.alpha(t)), ("sigma", schedule.sigma(t))):
        bad = ~(value.isfinite() & (value >= 0))
        if bad.any():
            raise ValueError(f"{name}: {label}({t[bad][0]:.4g}) = {value[bad][0]:.4g}")
    log_snr = schedule.log_snr(t)
    falling = log_snr[1:] < log_snr[:-1]
    if not falling.all():
        where = t[1:][~falling][0]
        raise ValueError(f"{name}: log-SNR does not fall strictly at t = {where:.4g}")
    inner = t[1:-1]
    error = (schedule.t_of_log_snr(schedule.log_snr(inner)) - inner).abs()
    if not (error < 1e-6).all():
        raise ValueError(
            f"{name}: t_of_log_snr is not the inverse of log_snr at t = {inner[error.argmax()]:.4g}"
        )
