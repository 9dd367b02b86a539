"""Samplers that put noise back: EDM's churn (with AlphaFold 3's scales) and Langevin correction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, State
from sciffusion.core.parameterization import times
from sciffusion.core.samplers.ancestral import DDPM
from sciffusion.core.samplers.base import Sampler
from sciffusion.core.times import Grid, Karras
from sciffusion.core.transitions import forward_transition


class Churn(Sampler):
    """Stochastic sampler of Karras et al. 2022, alg. 2, in coordinates x / alpha, sigma / alpha.

    Each step first raises the noise level by gamma, then takes an ODE step down. AlphaFold 3's
    sampler (its alg. 18) is `gamma=0.8, s_min=1, noise_scale=1.003, step_scale=1.5, heun=False`
    on its own grid.

    Args:
        s_churn: total churn; gamma = min(s_churn / steps, sqrt(2) - 1). Ignored with `gamma`.
        gamma: churn of each step.
        s_min, s_max: churn only where sigma/alpha lies between; with `gamma` given, the level that
            the step goes to is what must exceed s_min, as in AlphaFold 3.
        noise_scale: of the added noise; the declared order holds at 1, another leaves a bias.
        step_scale: of the ODE step; 1 is the plain solver.
        heun: second order (two calls a step), or Euler.
    """

    stochastic = True
    needs = "score"

    def __init__(
        self,
        steps: int = 32,
        grid: Grid | None = None,
        s_churn: float = 40.0,
        gamma: float | None = None,
        s_min: float = 0.05,
        s_max: float = 50.0,
        noise_scale: float = 1.003,
        step_scale: float = 1.0,
        heun: bool = True,
    ) -> None:
        super().__init__(steps, grid)
        self.s_churn, self.gamma, self.s_min, self.s_max = s_churn, gamma, s_min, s_max
        self.noise_scale, self.step_scale, self.heun = noise_scale, step_scale, heun
        self.order = 2 if heun else 1

    def default_grid(self) -> Grid:
        return Karras()

    def _gamma(self, level: float, after: float) -> float:
        if self.gamma is not None:
            return self.gamma if self.s_min < after and level <= self.s_max else 0.0
        inside = self.s_min <= level <= self.s_max
        return min(self.s_churn / self.steps, math.sqrt(2) - 1) if inside else 0.0

    def step(
        self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State
    ) -> Tensor:
        schedule = denoiser.schedule
        level, after = (float(schedule.sigma(v) / schedule.alpha(v)) for v in (t, s))
        gamma = self._gamma(level, after) if math.isfinite(level) else 0.0
        if gamma > 0:
            high = torch.tensor(level * (1 + gamma), dtype=torch.float64)
            up = schedule.t_of_log_snr(-2 * high.log())
            if float(up) > float(t):
                scale, var = forward_transition(schedule, t, up, x.ndim)
                z = self.noise(denoiser, x, "churn", cond, state)
                x, t = times(scale, x) + times(self.noise_scale * var.sqrt(), z), up
        pred = self.predict(denoiser, x, t, cond, state)
        ct, cs = denoiser.coefficients(t, x.ndim), denoiser.coefficients(s, x.ndim)
        if float(ct.alpha) == 0:  # no data yet: x / alpha has no meaning, DDIM's step has
            return times(cs.alpha, pred.x0) + times(cs.sigma, pred.eps)
        move = cs.alpha * self.step_scale * (cs.sigma / cs.alpha - ct.sigma / ct.alpha)
        base = times(cs.alpha / ct.alpha, x)
        ahead = base + times(move, pred.eps)
        if not self.heun or float(cs.sigma) == 0:
            return ahead
        other = self.predict(denoiser, ahead, s, cond, state)
        return base + times(0.5 * move, pred.eps + other.eps)


def alphafold3(steps: int = 200, sigma_data: float = 16.0) -> Churn:
    """AlphaFold 3's inference preset; random rotations are an `after_step` (`geometry`).

    It does not sample the true law: its step scale narrows it, which is its "temperature".
    """
    grid = Karras(sigma_min=4e-4 * sigma_data, rho=7.0, sigma_max=160.0 * sigma_data)
    return Churn(
        steps,
        grid,
        gamma=0.8,
        s_min=1.0,
        s_max=math.inf,
        noise_scale=1.003,
        step_scale=1.5,
        heun=False,
    )


class PredictorCorrector(DDPM):
    """DDPM steps, each followed by Langevin steps at the new level (Song et al. 2021, alg. 5).

    The step size is that of the expected norms, 2 (snr sigma)^2, so it depends on nothing but the
    level; noise and score are preconditioned by the space's covariance. The corrector's bias
    vanishes with snr: with snr^2 falling as 1/steps the sampler converges with order 1.

    Args:
        corrections: Langevin steps after each step.
        snr: their size.
    """

    def __init__(
        self,
        steps: int = 500,
        grid: Grid | None = None,
        corrections: int = 1,
        snr: float = 0.16,
    ) -> None:
        super().__init__(steps, grid)
        self.corrections, self.snr = corrections, snr

    def step(
        self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State
    ) -> Tensor:
        x = super().step(denoiser, x, t, s, cond, state)
        sigma = denoiser.schedule.sigma(s)
        if float(sigma) == 0:
            return x
        size = 2 * (self.snr * sigma) ** 2
        for k in range(self.corrections):
            eps = self.predict(denoiser, x, s, cond, state).eps
            z = self.noise(denoiser, x, f"langevin {k}", cond, state)
            x = x - times(size / sigma, eps) + times((2 * size).sqrt(), z)
        return x
