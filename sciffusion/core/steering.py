"""A denoiser led towards what is wanted of the data: the shift that every such guidance shares.

Where p(y | x_t) is modelled through the denoiser's own thought, log p(y | x_t) = L(x0hat(x_t), t),
the chain rule and Tweedie's formulae give the guided posterior mean

    x0 + (sigma^2 / alpha) Sigma grad_{x_t} L = x0 + Cov[x0 | x_t] grad_{x0} L,
    Cov[x0 | x_t] = (sigma^2 / alpha) Sigma J^T,  J = d x0hat / d x_t

(Chung et al. 2023, "Diffusion posterior sampling"; Boys et al. 2023; Sigma is the covariance of the
space's noise). One product with J^T is one backward pass through the network. `Isotropic` stands in
r_t^2 Sigma for it, which costs none. Exactness depends on L: see `inverse` and `potentials`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, Prediction, State, Wrapper
from sciffusion.core.parameterization import Coefficients, times
from sciffusion.core.schedules import Times

Product = Callable[[Tensor], Tensor]
"""v -> Cov[x0 | x_t] v."""


class NotFiniteError(ValueError):
    """What a sample is led by is not a number; the message names it and the noise level."""


def posterior_variance(c: Coefficients, sigma_data: float) -> Tensor:
    """r_t^2 = sigma^2 s^2 / (alpha^2 s^2 + sigma^2): variance of x0 given x_t, data N(0, s^2)."""
    s2 = sigma_data**2
    return c.sigma**2 * s2 / (c.alpha**2 * s2 + c.sigma**2)


@dataclass(frozen=True)
class Isotropic:
    """Cov[x0 | x_t] = r_t^2 Sigma, as for Gaussian data of standard deviation `sigma_data`."""

    sigma_data: float = 1.0


@dataclass(frozen=True)
class Look:
    """What a steered denoiser sees at x_t.

    Attributes:
        free: what the denoiser within thinks.
        led: the same, led.
        log_twist: (B,) L, the logarithm of how well x_t promises to fit, up to a constant that is
            the same for all samples.
    """

    free: Prediction
    led: Prediction
    log_twist: Float[Tensor, " b"]


class Steered(Wrapper):
    """A denoiser whose posterior mean is moved by the gradient of L; a subclass writes `pull`.

    Args:
        inner: gives posterior means; anything else has no score to move.
        covariance: None asks the network (a backward pass a call); `Isotropic` stands in.
        interval: led only where sigma/alpha lies in it.
        limit: the shift of x0 is at most this many r_t, as a root mean square over a sample; None
            leaves it free. It keeps steep potentials from throwing a sample away.
        sigma_data: standard deviation of the data, for r_t where it is needed.

    Raises:
        TypeError: `inner` gives no posterior mean.
        ValueError: an interval or a limit that makes no sense.
    """

    def __init__(
        self,
        inner: Denoiser,
        covariance: Isotropic | None = None,
        interval: tuple[float, float] = (0.0, float("inf")),
        limit: float | None = None,
        sigma_data: float = 1.0,
    ) -> None:
        super().__init__(inner)
        if inner.gives != "mean":
            mend = ": lead its teacher" if inner.gives == "jump" else ""
            raise TypeError(
                f"steering moves the score, and this denoiser gives a {inner.gives}{mend}"
            )
        if not 0 <= interval[0] < interval[1]:
            raise ValueError(f"an interval is (low, high) in sigma/alpha, not {interval}")
        if limit is not None and not limit > 0:
            raise ValueError(f"the limit of a shift is a positive number of r_t, not {limit}")
        self.covariance, self.interval, self.limit = covariance, interval, limit
        self.sigma_data = sigma_data

    @abstractmethod
    def pull(
        self, x0: Float[Tensor, "b ..."], c: Coefficients, cond: Cond, product: Product
    ) -> tuple[Float[Tensor, "b ..."], Float[Tensor, " b"]]:
        """(grad of L with respect to x0, L) at the thought x0.

        Args:
            product: v -> Cov[x0 | x_t] v.
        """

    def log_likelihood(self, x0: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, " b"]:
        """log p(y | x0) of finished samples, up to a constant; what particles end by."""
        raise NotImplementedError(f"{type(self).__name__} has no likelihood of finished samples")

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        c = self.coefficients(t, x_t.ndim)
        level = c.sigma / c.alpha.clamp_min(1e-300)
        inside = (level >= self.interval[0]) & (level <= self.interval[1])
        if not bool((inside & (c.alpha > 0) & (c.sigma > 0)).any()):
            free: Prediction = self.inner(x_t, t, cond, state)
            return free
        led = self.look(x_t, t, cond, state).led
        return led

    def look(self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None) -> Look:
        """What is thought of x_t, free and led, with how well it promises to fit.

        Raises:
            NotFiniteError: L or its gradient is not a number.
        """
        asks, outer = self.covariance is None, x_t.requires_grad and torch.is_grad_enabled()
        with torch.set_grad_enabled(asks or outer):
            x = x_t if outer or not asks else x_t.detach().requires_grad_()
            free: Prediction = self.inner(x, t, cond, state)
        c = free.c
        # Where no data are left x_t tells nothing; where no noise is, nothing is open.
        sees = (c.alpha > 0) & (c.sigma > 0)
        gain = torch.where(sees, c.sigma**2 / c.alpha.clamp_min(1e-300), 0.0)

        def product(v: Tensor) -> Tensor:
            if self.covariance is not None:
                r2 = posterior_variance(c, self.covariance.sigma_data)
                return times(torch.where(sees, r2, 0.0), self.space.covariance(v, cond))
            if not free.x0.requires_grad:  # nothing of x_t is in the thought
                return torch.zeros_like(x)
            (back,) = torch.autograd.grad(
                free.x0, x, v.to(free.x0.dtype), retain_graph=True, allow_unused=True
            )
            back = torch.zeros_like(x) if back is None else back
            return times(gain, self.space.covariance(back, cond))

        direction, log_twist = self.pull(free.x0.detach(), c, cond, product)
        self._check(direction, log_twist, c)
        shift = self._limited(product(direction), c, cond)
        low, high = self.interval
        level = c.sigma / c.alpha.clamp_min(1e-300)
        shift = times(torch.where((level >= low) & (level <= high), 1.0, 0.0), shift)
        if not outer:
            free = free if not free.x0.requires_grad else free.frozen()
            if state is not None:  # no graph is carried from step to step
                _detach(state.memory)
        ratio = torch.where(c.sigma > 0, c.alpha / c.sigma.clamp_min(1e-300), 0.0)
        led = free.replace(free.x0 + shift, free.eps - times(ratio, shift))
        return Look(free, led, log_twist.detach())

    def _check(self, direction: Tensor, log_twist: Tensor, c: Coefficients) -> None:
        wrong = ~(direction.flatten(1).isfinite().all(1) & log_twist.isfinite())
        if bool(wrong.any()):
            level = (c.sigma / c.alpha.clamp_min(1e-300)).expand(
                len(wrong), *[1] * (c.sigma.ndim - 1)
            )
            row = int(wrong.nonzero()[0])
            raise NotFiniteError(
                f"{type(self).__name__} is not a number for sample {row} of the batch at "
                f"sigma/alpha {float(level.flatten()[row]):.3g}: use it at lower noise only, or "
                "with less strength"
            )

    def _limited(self, shift: Tensor, c: Coefficients, cond: Cond) -> Tensor:
        if self.limit is None:
            return shift
        size = self.space.mean(shift**2, cond).sqrt().view(-1, *[1] * (shift.ndim - 1))
        most = self.limit * posterior_variance(c, self.sigma_data).sqrt()
        return shift * (most.to(size) / size.clamp_min(1e-30)).clamp_max(1.0)


def _detach(memory: dict[str, Any]) -> None:
    for key, value in memory.items():
        if isinstance(value, Tensor):
            memory[key] = value.detach()
        elif isinstance(value, dict):
            _detach(value)
