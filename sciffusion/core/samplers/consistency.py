"""Sampling by jumps: to the data, back to some noise, and to the data again (Song et al. 2023).

x = f(sigma(1) z, 1); then for each level s between: x = f(alpha_s x + sqrt(sigma_s^2 - alpha_s^2
sigma_min^2) z, s) (their algorithm 1). One step is one network call; each further step takes away
some of the error that the jump before made.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import PREVIOUS, Denoiser, State
from sciffusion.core.parameterization import times
from sciffusion.core.samplers.base import Sampler
from sciffusion.core.times import Between, Grid, Levels


class Consistency(Sampler):
    """One- and multi-step sampling of a consistency network.

    Args:
        steps: network calls.
        grid: where to come back to between the jumps; by default that of a sigma_data of 0.5.
        levels: sigma/alpha of the noise between the jumps, falling, instead of steps and grid.
        accept_means: also take an ordinary denoiser, its posterior means for jumps: samples of few
            steps are then blurred, and of no known law.
    """

    stochastic = True
    needs = "jump"

    def __init__(
        self,
        steps: int = 2,
        grid: Grid | None = None,
        levels: Sequence[float] | None = None,
        accept_means: bool = False,
    ) -> None:
        if levels is not None:
            steps, grid = len(levels) + 1, Levels(levels)
        super().__init__(steps, grid)
        self.accept_means = accept_means

    def default_grid(self) -> Grid:
        return Between(sigma_data=0.5)

    def check(self, denoiser: Denoiser) -> None:
        if not (self.accept_means and denoiser.gives == "mean"):
            super().check(denoiser)

    def step(
        self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State
    ) -> Tensor:
        if denoiser.gives == "jump":  # of x alone: what was thought at another level is not shown
            state.memory.pop(PREVIOUS, None)
        x0 = self.predict(denoiser, x, t, cond, state).x0
        if float(s) == 0:
            return x0
        c = denoiser.coefficients(s, x.ndim)
        left = (c.sigma**2 - (c.alpha * denoiser.sigma_min) ** 2).clamp_min(0).sqrt()
        return times(c.alpha, x0) + times(left, self.noise(denoiser, x, "step", cond, state))

    def finish(self, denoiser: Denoiser, x: Tensor, t: Tensor, cond: Cond, state: State) -> Tensor:
        """The last jump went to the data already."""
        return x
