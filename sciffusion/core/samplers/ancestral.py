"""Ancestral samplers: DDPM and DDIM.

DDPM draws x_s ~ p(x_s | x_t) with the posterior's mean at the predicted x0 (Ho et al. 2020, eq.
11); DDIM(eta) goes x_s = alpha_s x0 + sqrt(sigma_s^2 - eta^2 v) eps + eta sqrt(v) z with v the
posterior variance (Song et al. 2021, eq. 12, 16). Both work between any two times of any schedule.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, State
from sciffusion.core.parameterization import times
from sciffusion.core.samplers.base import Sampler
from sciffusion.core.times import Grid
from sciffusion.core.transitions import Variance, transition


class DDPM(Sampler):
    """Ancestral sampling.

    Args:
        variance: "small" (the posterior's), "large" (beta) or "learned".
    """

    stochastic = True
    needs = "score"

    def __init__(
        self, steps: int = 1000, grid: Grid | None = None, variance: Variance = "small"
    ) -> None:
        super().__init__(steps, grid)
        if variance not in ("small", "large", "learned"):
            raise ValueError(f"variance is small, large or learned, not {variance!r}")
        self.variance = variance

    def check(self, denoiser: Denoiser) -> None:
        super().check(denoiser)
        if self.variance == "learned" and not denoiser.learned_variance:
            raise TypeError(
                "variance=learned needs a network that was trained with learned_variance=true: "
                "use small"
            )

    def step(
        self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State
    ) -> Tensor:
        pred = self.predict(denoiser, x, t, cond, state)
        q = transition(denoiser.schedule, t, s, x.ndim)
        mean = q.mean(x, pred.x0)
        if float(q.var) == 0:  # the last step: noise left in a sample is a known trap
            return mean
        z = self.noise(denoiser, x, "step", cond, state)
        if self.variance == "learned":
            assert pred.log_var is not None
            return mean + (0.5 * q.log_var_learned(pred.log_var)).exp() * z
        return mean + times((q.var if self.variance == "small" else q.var_large).sqrt(), z)


class DDIM(Sampler):
    """Denoising diffusion implicit models.

    Args:
        eta: 0 is the deterministic sampler, 1 is DDPM with the small variance.
    """

    def __init__(self, steps: int = 50, grid: Grid | None = None, eta: float = 0.0) -> None:
        super().__init__(steps, grid)
        if not 0 <= eta <= 1:
            raise ValueError(f"eta lies between 0 (deterministic) and 1 (ancestral), not {eta}")
        self.eta, self.stochastic = eta, eta > 0
        self.needs = "score" if eta > 0 else "velocity"

    def step(
        self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State
    ) -> Tensor:
        pred = self.predict(denoiser, x, t, cond, state)
        c = denoiser.coefficients(s, x.ndim)
        if self.eta == 0:
            return times(c.alpha, pred.x0) + times(c.sigma, pred.eps)
        var = self.eta**2 * transition(denoiser.schedule, t, s, x.ndim).var
        kept = (c.sigma**2 - var).clamp_min(0).sqrt()
        mean = times(c.alpha, pred.x0) + times(kept, pred.eps)
        if float(var) == 0:
            return mean
        return mean + times(torch.sqrt(var), self.noise(denoiser, x, "step", cond, state))
