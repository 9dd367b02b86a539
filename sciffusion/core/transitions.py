"""q and p between two times t > s: what ancestral samplers and the bound share.

q(x_s | x_t, x0) = N(a x_t + b x0, var) with, for L = log-SNR,
sigma_{t|s}^2 = sigma_t^2 (1 - exp(L_t - L_s)),  var = sigma_{t|s}^2 sigma_s^2 / sigma_t^2
(Kingma et al. 2021, eq. 24-29); written with expm1, so nothing cancels. Noise has the space's
covariance throughout: `var` multiplies Sigma.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.parameterization import Coefficients, times
from sciffusion.core.schedules import Schedule, Times

Variance = Literal["small", "large", "learned"]


@dataclass(frozen=True)
class Transition:
    """Coefficients of q(x_s | x_t, x0); each 0-d or shaped to multiply x."""

    x_t: Tensor
    x0: Tensor
    var: Tensor
    """Posterior variance: the smaller of the two fixed choices of Ho et al. 2020."""
    var_large: Tensor
    """sigma_{t|s}^2: the larger; beta_t on a table."""
    log_var_clipped: Tensor
    """log var, at the last step (s clean) that of the step before, where var itself is zero."""

    def mean(
        self, x_t: Float[Tensor, "b ..."], x0: Float[Tensor, "b ..."]
    ) -> Float[Tensor, "b ..."]:
        """Mean of q(x_s | x_t, x0)."""
        return times(self.x_t, x_t) + times(self.x0, x0)

    def log_var_learned(self, mix: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Learned log-variance: `mix` = 1 is the larger, 0 the smaller bound."""
        return times(self.var_large.log(), mix) + times(self.log_var_clipped, 1 - mix)


def _variances(t: Coefficients, s: Coefficients) -> tuple[Tensor, Tensor]:
    large = -(t.sigma**2) * (t.log_snr - s.log_snr).expm1()
    return large * s.sigma**2 / t.sigma**2, large


def transition(schedule: Schedule, t: Times, s: Times, ndim: int) -> Transition:
    """The reverse transition from t to s < t, for data of `ndim` axes."""
    t, s = t.double(), s.double()
    ct, cs = Coefficients(schedule, t, ndim), Coefficients(schedule, s, ndim)
    small, large = _variances(ct, cs)
    up = (2 * t - s).clamp_max(1.0)
    previous, _ = _variances(Coefficients(schedule, up, ndim), ct)
    # A single step from t = 1 has none before it: both bounds are then the larger one.
    previous = torch.where((up > t).view(previous.shape), previous, large)
    clipped = torch.where(small > 0, small, previous).log()
    shrink = (ct.log_snr - cs.log_snr).exp()  # alpha_{t|s}^2 sigma_s^2 / sigma_t^2
    ratio = torch.where(ct.alpha > 0, ct.alpha / cs.alpha, torch.zeros_like(ct.alpha))
    return Transition(
        x_t=ratio * cs.sigma**2 / ct.sigma**2,
        x0=cs.alpha * (1 - shrink),
        var=small,
        var_large=large,
        log_var_clipped=clipped,
    )


def forward_transition(schedule: Schedule, s: Times, t: Times, ndim: int) -> tuple[Tensor, Tensor]:
    """(scale, variance) of q(x_t | x_s), s < t: adding noise."""
    ct, cs = Coefficients(schedule, t.double(), ndim), Coefficients(schedule, s.double(), ndim)
    return ct.alpha / cs.alpha, -(ct.sigma**2) * (ct.log_snr - cs.log_snr).expm1()
