"""Denoisers whose thought of the data lies in a set: x0 <- P(x0) at every call.

What is known of a sample is put into the thought E[x0 | x_t], not into x_t: whatever the sampler,
its steps then lead to data that have it, and the network sees it in the next x_t and, where it is
self-conditioned, in its own last thought. Zero-shot: any trained denoiser will do.

`RigidGroups` is the set of point clouds that hold given groups of points, each up to a proper rigid
motion of its own. The nearest such cloud has each group superposed by least squares (Kabsch 1976),
so P needs no gradient and never makes a mirror image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import PREVIOUS, Denoiser, Prediction, State, Wrapper
from sciffusion.core.geometry import kabsch
from sciffusion.core.schedules import Times

Projection = Callable[[Tensor, Cond], Tensor]
"""(x0, cond) -> the nearest x0 of the set; twice is the same as once."""
KNOWN, GROUP = "known", "known_group"
"""Where `RigidGroups` finds its points and their groups, in `Cond.structure`."""


class Projected(Wrapper):
    """x0 <- P(x0), eps = (x_t - alpha x0) / sigma.

    Samplers that end beside the last thought (a step scale, a churn) need `settle` as their
    `after_step`; with it samples lie in the set whatever the sampler. Several sets: one around the
    other, the outer one last.

    Args:
        projection: P. What it must know of each sample stands in `cond.structure`.
        interval: only where sigma/alpha lies in [low, high); what begins at 0 also settles samples.

    Raises:
        ValueError: an interval that is none.
    """

    def __init__(
        self,
        inner: Denoiser,
        projection: Projection,
        interval: tuple[float, float] = (0.0, float("inf")),
    ) -> None:
        super().__init__(inner)
        if not 0 <= interval[0] < interval[1]:
            raise ValueError(f"a projection's interval is (low, high) in sigma/alpha: {interval}")
        self.projection, self.interval = projection, interval
        self.learned_variance = False  # it is that of another thought

    def project(self, x0: Float[Tensor, "b ..."], cond: Cond) -> Float[Tensor, "b ..."]:
        """P, and back into the space (the centre of mass at the origin, padding at zero)."""
        return self.space.project(self.projection(x0, cond), cond)

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        pred: Prediction = self.inner(x_t, t, cond, state)
        low, high = self.interval
        level = float((-0.5 * self.schedule.log_snr(t.double())).exp().max())
        # As times of a batch are equal or near, all of it is projected or none.
        if not (low <= level < high or level == high == float("inf")):
            return pred
        plain = Prediction(x_t, pred.x0, pred.eps, pred.c, self.space, cond)
        found = plain.replace(self.project(pred.x0, cond))
        if state is not None and (before := state.memory.get(PREVIOUS)) is not None:
            # Guidance remembers several thoughts of each sample, one batch after the other.
            thoughts = before.split(len(x_t))
            state.memory[PREVIOUS] = torch.cat([self.project(v, cond) for v in thoughts])
        return found

    def settle(self, x: Tensor, t: Tensor, s: Tensor, cond: Cond, state: State) -> Tensor:
        """P of the sample where the noise has ended; an `after_step` of samplers."""
        if float(self.schedule.sigma(s)) > 0:
            return x
        if isinstance(self.inner, Projected):
            x = self.inner.settle(x, t, s, cond, state)
        return self.project(x, cond) if self.interval[0] == 0 else x


class RigidGroups:
    """Points known up to a proper rigid motion of each group.

    `cond.structure` holds `known` (B, N, *A, 3), their coordinates wherever they lie, and
    `known_group` (B, N), the number of each point's group from 1; 0 is free. Points may come in
    sets of A, such as the atoms of a residue.
    """

    def __call__(self, x0: Float[Tensor, "b n *a 3"], cond: Cond) -> Float[Tensor, "b n *a 3"]:
        known, group = cond.structure[KNOWN], cond.structure[GROUP]
        for number in range(1, int(group.max()) + 1):
            mine = group == number
            moved = kabsch(known.to(x0.dtype), x0, mine)
            x0 = torch.where(mine.view(*mine.shape, *[1] * (x0.ndim - 2)), moved, x0)
        return x0


def with_known(cond: Cond, known: Float[Tensor, "b n *a 3"], group: Int[Tensor, "b n"]) -> Cond:
    """`cond` with what `RigidGroups` must know."""
    return cond.with_structure(**{KNOWN: known, GROUP: group})
