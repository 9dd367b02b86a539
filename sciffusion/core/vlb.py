"""The exact discrete variational bound: L_T, every L_t as a KL, the discretised L_0, in bits.

-log2 p(x) <= L_T + sum_t L_t + L_0 over T steps (Ho et al. 2020, eq. 5; Nichol & Dhariwal 2021 for
learned variances), divided by the true degrees of freedom. `space.mean` of a KL density is nats a
dimension; L_0 integrates the last Gaussian over the bin of an 8-bit value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, Prediction
from sciffusion.core.parameterization import times as scaled
from sciffusion.core.rng import Rng
from sciffusion.core.transitions import Transition, Variance, transition


def gaussian_kl(
    mean1: Tensor, log_var1: Tensor, mean2: Tensor, log_var2: Tensor
) -> Float[Tensor, "b ..."]:
    """KL(N1 || N2) elementwise, in nats, diagonal covariances."""
    ratio = (log_var1 - log_var2).exp()
    return 0.5 * (log_var2 - log_var1 + ratio - 1 + (mean1 - mean2) ** 2 * (-log_var2).exp())


def discretised_log_likelihood(
    x: Float[Tensor, "b ..."],
    mean: Float[Tensor, "b ..."],
    log_std: Float[Tensor, "b ..."],
    bins: int = 256,
) -> Float[Tensor, "b ..."]:
    """log probability of the bin of x, for data on `bins` equal levels of [-1, 1]; the end bins
    reach to infinity.
    """
    half = 1 / (bins - 1)
    inverse = (-log_std).exp()

    # In the upper tail 1 - cdf is what has digits left: reflect, so that both are lower tails.
    sign = torch.where(x - mean > 0, -1.0, 1.0).to(x.dtype)
    near = torch.special.log_ndtr(sign * (x - mean + sign * half) * inverse)
    far = torch.special.log_ndtr(sign * (x - mean - sign * half) * inverse)
    inner = near + torch.log(-torch.expm1(torch.clamp_max(far - near, -1e-12)))
    low = torch.special.log_ndtr((x - mean + half) * inverse)
    high = torch.special.log_ndtr(-(x - mean - half) * inverse)
    edge = 1 - 0.5 * half
    return torch.where(x < -edge, low, torch.where(x > edge, high, inner))


def _reverse(q: Transition, pred: Prediction, variance: Variance) -> tuple[Tensor, Tensor]:
    """(mean, log-variance) of p(x_s | x_t)."""
    mean = q.mean(pred.x, pred.x0)
    if variance == "learned":
        if pred.log_var is None:
            raise TypeError("a learned variance was asked of a network that gives none")
        return mean, q.log_var_learned(pred.log_var)
    log_var = q.log_var_clipped if variance == "small" else q.var_large.log()
    return mean, log_var.to(mean.dtype).expand_as(mean)


def _term(
    denoiser: Denoiser,
    pred: Prediction,
    x0: Tensor,
    t: Tensor,
    s: Tensor,
    variance: Variance,
    bins: int,
) -> Float[Tensor, " b"]:
    """The bound's term of one step t -> s, nats a dimension; L_0 where s = 0."""
    q = transition(denoiser.schedule, t, s, x0.ndim)
    mean, log_var = _reverse(q, pred, variance)
    true_log_var = q.log_var_clipped.to(x0.dtype).expand_as(x0)
    kl = gaussian_kl(q.mean(pred.x, x0), true_log_var, mean, log_var)
    first = -discretised_log_likelihood(x0, mean, 0.5 * log_var, bins)
    is_first = (s == 0).to(x0.device).expand(len(x0)).view(-1, *[1] * (x0.ndim - 1))
    return denoiser.space.mean(torch.where(is_first, first, kl), pred.cond)


def step_kl(
    denoiser: Denoiser, pred: Prediction, x0: Tensor, t: Tensor, steps: int, bins: int = 256
) -> Float[Tensor, " b"]:
    """The bound's term at t for a learned variance, nats a dimension: what L_hybrid adds.

    Times are rounded up to the T-step grid that the bound lives on (those on it stay, although
    (i / T) T may come out a rounding error above i).
    """
    k = (t * steps - 1e-6).ceil().clamp_min(1)
    return _term(denoiser, pred, x0, k / steps, (k - 1) / steps, "learned", bins)


@dataclass(frozen=True)
class Bound:
    """The bound of each sample, in bits per dimension.

    Attributes:
        prior: L_T, the KL of q(x_T | x0) from the prior.
        terms: (b, T) L_0, L_1, ..., L_(T-1).
    """

    prior: Float[Tensor, " b"]
    terms: Float[Tensor, "b steps"]

    @property
    def total(self) -> Float[Tensor, " b"]:
        """Bits per dimension."""
        return self.prior + self.terms.sum(1)


@torch.no_grad()
def discrete_bound(
    denoiser: Denoiser,
    x0: Float[Tensor, "b ..."],
    cond: Cond | None,
    rng: Rng,
    steps: int = 1000,
    variance: Variance = "small",
    bins: int = 256,
    times: Float[Tensor, " steps_and_one"] | None = None,
) -> Bound:
    """The bound over T steps, one draw of the noise a term (unbiased), T network calls.

    Args:
        denoiser: a posterior mean; Euclidean space (the prior's KL is written for Sigma = 1).
        x0: data on `bins` equal levels of [-1, 1].
        steps: T equal steps of t; or give `times`, a grid that falls from 1 to 0.

    Raises:
        TypeError: the denoiser gives no posterior mean.
    """
    if denoiser.gives != "mean":
        raise TypeError(f"the bound needs a posterior mean; this denoiser gives a {denoiser.gives}")
    cond = cond or Cond()
    one = torch.ones((), dtype=torch.float64)
    c = denoiser.coefficients(one, x0.ndim)
    # Against the prior N(0, sigma(1)^2), from which samplers start.
    prior = denoiser.space.mean(scaled(c.alpha / c.sigma, x0) ** 2 * 0.5, cond)
    grid = torch.arange(steps + 1, dtype=torch.float64) / steps if times is None else times.flip(0)
    grid, terms = grid.double().cpu(), []
    for i in range(1, len(grid)):
        t = grid[i]
        c = denoiser.coefficients(t, x0.ndim)
        eps = denoiser.space.noise(rng.at(i), "bound", tuple(x0.shape[1:]), cond, x0.dtype)
        pred: Prediction = denoiser(scaled(c.alpha, x0) + scaled(c.sigma, eps), t, cond)
        terms.append(_term(denoiser, pred, x0, t, grid[i - 1], variance, bins))
    return Bound(prior / math.log(2), torch.stack(terms, 1) / math.log(2))
