"""Sequential Monte Carlo with twisted proposals: exact conditional sampling from any twist.

Each particle begins with the weight twist(x_1), then takes ancestral steps by the led denoiser and
gains the weight p(x_s | x_t) twist(x_s) / (twist(x_t) q(x_s | x_t)) in each; particles are drawn
anew by weight when few carry most of it. The last twist is the likelihood itself, so as the number
of particles grows the result tends to p(x0) p(y | x0) / p(y) under the model's own ancestral law,
whatever the twist: a bad one costs particles, not truth (Wu et al. 2023, "Practical and
asymptotically exact conditional sampling in diffusion models").
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, State
from sciffusion.core.parameterization import times
from sciffusion.core.samplers.ancestral import DDPM
from sciffusion.core.steering import Look, Steered
from sciffusion.core.times import Grid
from sciffusion.core.transitions import transition

_LOOK, _WEIGHT = "look", "log_weight"


class Twisted(DDPM):
    """Particles of a `steering.Steered` denoiser.

    Consecutive samples form a group of `particles`, which answers one question: its samples are
    draws from the posterior, some of them equal. A group must lie within one batch and have one
    condition.

    Args:
        particles: in a group.
        threshold: particles are drawn anew where the effective sample size is under this share.
    """

    def __init__(
        self,
        steps: int = 100,
        grid: Grid | None = None,
        particles: int = 64,
        threshold: float = 0.5,
    ) -> None:
        super().__init__(steps, grid)
        if particles < 1 or not 0 < threshold <= 1:
            raise ValueError(
                f"particles={particles} must be at least 1, threshold={threshold} between 0 and 1"
            )
        self.particles, self.threshold = particles, threshold

    def check(self, denoiser: Denoiser) -> None:
        super().check(denoiser)
        if not isinstance(denoiser, Steered):
            raise TypeError(
                "Twisted particles need a steered denoiser outermost (a measurement or potentials)"
            )

    def step(
        self, denoiser: Denoiser, x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State
    ) -> Tensor:
        assert isinstance(denoiser, Steered)
        if len(x) % self.particles:
            raise ValueError(
                f"{len(x)} samples are no whole number of groups of {self.particles} particles"
            )
        if _WEIGHT not in state.memory:
            self._alike(cond)
        look = self._look(denoiser, x, t, cond, state)
        q = transition(denoiser.schedule, t, s, x.ndim)
        free = q.mean(x, look.free.x0)
        weight = state.memory.get(_WEIGHT, look.log_twist.double())
        if float(q.var) == 0:  # the last step has no room to choose in: led by weight alone
            after = denoiser.log_likelihood(free, cond)
            weight = weight + (after - look.log_twist).double()
            return self._chosen(free, weight, state, always=True)
        led = q.mean(x, look.led.x0)
        x_s = led + times(q.var.sqrt(), self.noise(denoiser, x, "step", cond, state))

        def square(mean: Tensor) -> Tensor:
            away = x_s - mean
            inner = away * denoiser.space.precision(away, cond)
            return inner.flatten(1).sum(1).double() / q.var

        chance = -0.5 * (square(free) - square(led))
        ahead = denoiser.look(x_s, s, cond, state)
        weight = weight + chance + (ahead.log_twist - look.log_twist).double()
        state.memory[_LOOK] = ahead
        return self._chosen(x_s, weight, state)

    def _alike(self, cond: Cond) -> None:
        """Refuse groups of particles that do not answer one question.

        Raises:
            ValueError: a group of more than one condition or structure.
        """
        keep = {} if cond.keep is None else {"keep": cond.keep}
        for name, value in {**cond.structure, **cond.condition, **keep}.items():
            groups = value.reshape(-1, self.particles, *value.shape[1:])
            if not torch.equal(groups, groups[:, :1].expand_as(groups)):
                raise ValueError(
                    f"the {self.particles} particles of a group answer one question together: "
                    f"they need one {name}"
                )

    def _look(self, denoiser: Steered, x: Tensor, t: Tensor, cond: Cond, state: State) -> Look:
        """What was seen when the last step's result was weighed, or, at the start, a first look."""
        seen: Look | None = state.memory.pop(_LOOK, None)
        return denoiser.look(x, t, cond, state) if seen is None else seen

    def _chosen(self, x: Tensor, weight: Tensor, state: State, always: bool = False) -> Tensor:
        """Particles drawn anew within each group by systematic resampling."""
        groups = weight.view(-1, self.particles)
        share = groups.softmax(1)
        few = 1 / (share**2).sum(1) < self.threshold * self.particles
        few = torch.ones_like(few) if always else few
        u = state.rng.uniform("resample").view(-1, self.particles)[:, :1]
        place = (u + torch.arange(self.particles, device=x.device)) / self.particles
        drawn = torch.searchsorted(share.cumsum(1).contiguous(), place.contiguous())
        own = torch.arange(self.particles, device=x.device)
        drawn = torch.where(few[:, None], drawn.clamp_max(self.particles - 1), own)
        rows = (drawn + self.particles * torch.arange(len(groups), device=x.device)[:, None]).view(
            -1
        )
        state.memory = _rows(state.memory, rows)
        state.memory[_WEIGHT] = torch.where(few[:, None], 0.0, groups).view(-1)
        return x[rows]


def _rows(memory: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    """What is remembered of the particles that were drawn."""
    found: dict[str, Any] = {}
    for key, value in memory.items():
        if isinstance(value, Tensor):
            # Guidance has two rows for each sample, one half after the other.
            copies = len(value) // len(rows)
            every = torch.cat([rows + k * len(rows) for k in range(copies)])
            found[key] = value[every]
        elif isinstance(value, Look):
            found[key] = Look(value.free.rows(rows), value.led.rows(rows), value.log_twist[rows])
        elif isinstance(value, dict):
            found[key] = _rows(value, rows)
        else:
            found[key] = value
    return found
