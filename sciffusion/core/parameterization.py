"""What a network's raw output means: eps, x0, v, velocity or EDM's preconditioned x0.

With x_t = alpha x0 + sigma eps:  v = alpha eps - sigma x0 (Salimans & Ho 2022), velocity
u = alpha' x0 + sigma' eps (flow matching), EDM: x0 = c_skip x + c_out F(c_in x) (Karras et al.
2022, eq. 7, in the coordinates x = x_t / alpha, sigma / alpha). Each class converts both ways and
knows `gain` = d x0 / d raw, which turns an error of the raw output into an error of x0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from sciffusion.core.schedules import Schedule, Times


class Coefficients:
    """A schedule at the times of a batch: float64, shaped to multiply x_t, each computed once.

    A 0-d `t` (one time for the whole batch) stays 0-d and may live on the CPU: PyTorch then treats
    its coefficients as plain numbers, so a sampling loop never waits for the device.
    """

    def __init__(self, schedule: Schedule, t: Times, ndim: int) -> None:
        self.schedule = schedule
        self.t = t.double() if t.ndim == 0 else t.double().view(-1, *[1] * (ndim - 1))

    @cached_property
    def alpha(self) -> Tensor:
        """alpha(t)."""
        return self.schedule.alpha(self.t)

    @cached_property
    def sigma(self) -> Tensor:
        """sigma(t)."""
        return self.schedule.sigma(self.t)

    @cached_property
    def d_alpha(self) -> Tensor:
        """alpha'(t)."""
        return self.schedule.d_alpha(self.t)

    @cached_property
    def d_sigma(self) -> Tensor:
        """sigma'(t)."""
        return self.schedule.d_sigma(self.t)

    @cached_property
    def log_snr(self) -> Tensor:
        """log(alpha^2 / sigma^2)."""
        return self.schedule.log_snr(self.t)

    @cached_property
    def norm(self) -> Tensor:
        """sqrt(alpha^2 + sigma^2)."""
        return (self.alpha**2 + self.sigma**2).sqrt()


def times(a: Tensor, x: Tensor) -> Tensor:
    """A float64 coefficient times data, in the data's precision."""
    return a.to(x.dtype) * x


class Parameterization(ABC):
    """Conversions between the raw output and (x0, eps)."""

    needs_data_at_start = False
    """True where x0 cannot be had at alpha = 0 (zero terminal SNR)."""

    def scale_in(self, c: Coefficients) -> Tensor:
        """c_in: what x_t is multiplied by before the network; unit variance for unit data."""
        return 1 / c.norm

    @abstractmethod
    def to_x0_eps(self, raw: Tensor, x: Tensor, c: Coefficients) -> tuple[Tensor, Tensor]:
        """Raw output to (x0, eps)."""

    @abstractmethod
    def target(self, x0: Tensor, eps: Tensor, c: Coefficients) -> Tensor:
        """(x0, eps) to the raw output that would be right."""

    @abstractmethod
    def gain(self, c: Coefficients) -> Tensor:
        """d x0 / d raw."""


def eps_of_x0(x0: Tensor, x: Tensor, c: Coefficients) -> Tensor:
    """(x_t - alpha x0) / sigma; zero where there is no noise."""
    eps = times(1 / c.sigma.clamp_min(1e-300), x - times(c.alpha, x0))
    return torch.where((c.sigma > 0).to(x.device), eps, torch.zeros((), dtype=x.dtype).to(x.device))


class Eps(Parameterization):
    """The network predicts the noise (Ho et al. 2020)."""

    needs_data_at_start = True

    def to_x0_eps(self, raw: Tensor, x: Tensor, c: Coefficients) -> tuple[Tensor, Tensor]:
        return times(1 / c.alpha, x - times(c.sigma, raw)), raw

    def target(self, x0: Tensor, eps: Tensor, c: Coefficients) -> Tensor:
        return eps

    def gain(self, c: Coefficients) -> Tensor:
        return -c.sigma / c.alpha


class X0(Parameterization):
    """The network predicts the data."""

    def to_x0_eps(self, raw: Tensor, x: Tensor, c: Coefficients) -> tuple[Tensor, Tensor]:
        return raw, eps_of_x0(raw, x, c)

    def target(self, x0: Tensor, eps: Tensor, c: Coefficients) -> Tensor:
        return x0

    def gain(self, c: Coefficients) -> Tensor:
        return torch.ones_like(c.alpha)


class V(Parameterization):
    """The network predicts v = alpha eps - sigma x0 (Salimans & Ho 2022)."""

    def to_x0_eps(self, raw: Tensor, x: Tensor, c: Coefficients) -> tuple[Tensor, Tensor]:
        n = c.norm**2
        x0 = times(c.alpha / n, x) - times(c.sigma / n, raw)
        return x0, times(c.sigma / n, x) + times(c.alpha / n, raw)

    def target(self, x0: Tensor, eps: Tensor, c: Coefficients) -> Tensor:
        return times(c.alpha, eps) - times(c.sigma, x0)

    def gain(self, c: Coefficients) -> Tensor:
        return -c.sigma / c.norm**2


class Velocity(Parameterization):
    """The network predicts dx/dt = alpha' x0 + sigma' eps (flow matching)."""

    def _wronskian(self, c: Coefficients) -> Tensor:
        return c.d_sigma * c.alpha - c.sigma * c.d_alpha

    def to_x0_eps(self, raw: Tensor, x: Tensor, c: Coefficients) -> tuple[Tensor, Tensor]:
        w = self._wronskian(c)
        x0 = times(c.d_sigma / w, x) - times(c.sigma / w, raw)
        return x0, times(c.alpha / w, raw) - times(c.d_alpha / w, x)

    def target(self, x0: Tensor, eps: Tensor, c: Coefficients) -> Tensor:
        return times(c.d_alpha, x0) + times(c.d_sigma, eps)

    def gain(self, c: Coefficients) -> Tensor:
        return -c.sigma / self._wronskian(c)


class Preconditioned(Parameterization):
    """EDM: x0 = c_skip x + c_out F, so that input, target and error all have unit variance.

    Args:
        sigma_data: standard deviation of the data, measured (`losses.measure_sigma_data`).
    """

    def __init__(self, sigma_data: float) -> None:
        if not sigma_data > 0:
            raise ValueError(
                f"sigma_data must be measured from the data and positive: {sigma_data}"
            )
        self.sigma_data = float(sigma_data)

    def _scale(self, c: Coefficients) -> Tensor:
        """sqrt(sigma_data^2 alpha^2 + sigma^2): the standard deviation of x_t."""
        return ((self.sigma_data * c.alpha) ** 2 + c.sigma**2).sqrt()

    def scale_in(self, c: Coefficients) -> Tensor:
        return 1 / self._scale(c)

    def gain(self, c: Coefficients) -> Tensor:
        return c.sigma * self.sigma_data / self._scale(c)

    def _skip(self, c: Coefficients) -> Tensor:
        return self.sigma_data**2 * c.alpha / self._scale(c) ** 2

    def to_x0_eps(self, raw: Tensor, x: Tensor, c: Coefficients) -> tuple[Tensor, Tensor]:
        x0 = times(self._skip(c), x) + times(self.gain(c), raw)
        # (x - alpha x0) / sigma with sigma divided out by hand: exact at low noise.
        n = self._scale(c)
        return x0, times(c.sigma / n**2, x) - times(c.alpha * self.sigma_data / n, raw)

    def target(self, x0: Tensor, eps: Tensor, c: Coefficients) -> Tensor:
        # (x0 - c_skip x_t) / c_out, written without the division by sigma.
        n = self._scale(c)
        return times(c.sigma / (self.sigma_data * n), x0) - times(
            self.sigma_data * c.alpha / n, eps
        )


def check_jump(parameterization: Parameterization) -> None:
    """Refuse parameterizations that make no consistency network.

    Raises:
        ValueError: f(x, no noise) = x would not hold, or nothing but an infinitely exact network
            could jump from pure noise.
    """
    why = {
        X0: "x0-prediction does not leave x as it is where there is no noise",
        Eps: "eps-prediction multiplies its errors by sigma/alpha when it jumps from pure noise",
    }
    for kind, reason in why.items():
        if isinstance(parameterization, kind):
            raise ValueError(f"{reason}: a consistency network needs edm, v or velocity")
