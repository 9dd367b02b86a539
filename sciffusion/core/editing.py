"""Zero-shot editing, over any sampler: a part kept (replacement, RePaint), a part changed (SDEdit).

Replacement is a denoiser whose x0 is the truth where it is known, so x_t there walks q(x_t | known)
by whatever steps a sampler takes, and ends at the known part exactly. It is not exact for the rest,
which sees the known part only through its noise; RePaint's jumps back up let the two agree
(Lugmayr et al. 2022), and `inverse` and `samplers.Twisted` do better where the frame is fixed.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, Prediction, State, Wrapper
from sciffusion.core.geometry import kabsch
from sciffusion.core.parameterization import times as scaled
from sciffusion.core.rng import Rng
from sciffusion.core.samplers.base import Sampler
from sciffusion.core.schedules import Schedule, Times


def time_of_level(level: float, schedule: Schedule) -> Float[Tensor, ""]:
    """The time at which sigma/alpha is this level.

    Raises:
        ValueError: no noise, or more than there is at t = 1.
    """
    one = torch.ones((), dtype=torch.float64)
    most = float(schedule.sigma(one) / schedule.alpha(one))
    if not (0 < level <= most and math.isfinite(level)):
        known = f"and at most {most:g}" if math.isfinite(most) else "and finite"
        raise ValueError(f"noise={level:g} must be more than 0 {known}")
    return schedule.t_of_log_snr(-2 * torch.tensor(level, dtype=torch.float64).log())


def rest_of_way(
    t: Float[Tensor, ""], sampler: Sampler, schedule: Schedule
) -> Float[Tensor, " steps_and_one"]:
    """t, and the times of the sampler's grid that come after it."""
    grid = sampler.grid(sampler.steps, schedule)
    return torch.cat([t[None], grid[grid < t]])


def noised(
    x0: Float[Tensor, "b ..."],
    t: Float[Tensor, ""],
    denoiser: Denoiser,
    cond: Cond,
    seed: int,
    index: Tensor,
) -> Float[Tensor, "b ..."]:
    """x0 at time t: where SDEdit begins (Meng et al. 2022).

    A sample's noise follows from (seed, its number in `index` (B,)).
    """
    x0 = denoiser.space.project(x0, cond)
    rng = Rng(seed, index.to(x0.device))
    z = denoiser.space.noise(rng, "partial", tuple(x0.shape[1:]), cond, x0.dtype)
    schedule = denoiser.schedule
    return scaled(schedule.alpha(t), x0) + scaled(schedule.sigma(t), z)


def resampled(
    grid: Float[Tensor, " steps_and_one"], times: int = 10, jump: int = 10
) -> Float[Tensor, " more"]:
    """RePaint's way: every `jump` steps down the grid are walked `times` times.

    Raises:
        ValueError: a number under 1.
    """
    if times < 1 or jump < 1:
        raise ValueError(f"RePaint walks {jump} steps {times} times: both must be at least 1")
    parts = [grid[:1]]
    for start in range(0, len(grid) - 1, jump):
        block = grid[start + 1 : start + jump + 1]
        parts += [block, *[torch.cat([grid[start : start + 1], block])] * (times - 1)]
    return torch.cat(parts)


class Replacement(Wrapper):
    """x0 is the known part where it is known.

    Args:
        inner: gives posterior means.
        known: (1 or B, ...) the known part; what stands elsewhere does not matter.
        where: True where it is known, (1 or B, ...) to broadcast against samples; for `rigid`
            (1 or B, N), the points (or groups of points).
        rigid: points that are known up to how they lie: they are laid on the network's own thought
            of them at every call, never reflected (Kabsch). For clouds whose centre is fixed this
            is the only meaning of "known".

    Raises:
        TypeError: `inner` gives no posterior mean.
        ValueError: nothing is known.
    """

    def __init__(
        self,
        inner: Denoiser,
        known: Float[Tensor, "b ..."],
        where: Bool[Tensor, "*b"],
        rigid: bool = False,
    ) -> None:
        super().__init__(inner)
        if inner.gives != "mean":
            raise TypeError(
                f"replacement needs a posterior mean; this denoiser gives a {inner.gives}"
            )
        if not bool(where.any()):
            raise ValueError("nothing is known: mark at least one number or point")
        self.known, self.where, self.rigid = known, where, rigid

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        pred: Prediction = self.inner(x_t, t, cond, state)
        known = self.known.to(pred.x0).expand_as(pred.x0)
        where = self.where.to(x_t.device)
        if self.rigid:
            where = where.expand(x_t.shape[:2])
            known = kabsch(known, pred.x0.detach(), where)
            where = where.view(*x_t.shape[:2], *[1] * (x_t.ndim - 2))
        return pred.replace(self.space.project(torch.where(where, known, pred.x0), cond))
