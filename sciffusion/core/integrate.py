"""Adaptive integration of ordinary differential equations, with a step size for each sample.

dy/ds = f(y, s) by Dormand & Prince 1980, RK5(4)7M: fifth order, with the error told by the embedded
fourth. A sample's steps do not depend on what it is batched with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Parts = tuple[Tensor, ...]
"""What is integrated: tensors with a leading batch axis."""

# Nodes, stages, and the fifth minus the fourth order weights.
_C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_A: tuple[tuple[float, ...], ...] = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_E = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def _rows(v: Tensor, like: Tensor) -> Tensor:
    return v.view(-1, *[1] * (like.ndim - 1))


def _sum(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    terms = (w * k for w, k in zip(weights, slopes, strict=True))
    return sum(terms, torch.zeros_like(slopes[0]))


def dormand_prince(
    slope: Callable[[Parts, Float[Tensor, " b"]], Parts],
    y: Parts,
    start: Float[Tensor, " b"],
    goal: Float[Tensor, " b"],
    norm: Callable[[Parts, Parts, Parts], Float[Tensor, " b"]],
    max_calls: int = 10_000,
) -> Parts:
    """y at `goal`.

    Step sizes carry no gradient; the result does, where gradients are on.

    Args:
        slope: (y, s) -> dy/ds.
        y: at `start`.
        start, goal: (B,) float64, either way.
        norm: (error of a step, y before, y after) -> (B,); a step is taken where it is at most 1.
        max_calls: of `slope` before giving up.

    Raises:
        RuntimeError: `max_calls` were not enough.
    """
    s, h = start.clone(), (goal - start) * 0.05
    first, calls = slope(y, s), 1
    while bool((s != goal).any()):
        if calls >= max_calls:
            raise RuntimeError(f"dopri5: {max_calls} calls were not enough; raise rtol")
        left = goal - s
        h = torch.where(h.abs() > left.abs(), left, h)  # not beyond the goal
        stages, ahead = [first], y
        for c_i, a_i in zip(_C[1:], _A[1:], strict=True):
            ahead = tuple(
                part + _rows(h, part).to(part.dtype) * _sum(a_i, [k[p] for k in stages])
                for p, part in enumerate(y)
            )
            stages.append(slope(ahead, s + c_i * h))
            calls += 1
        error = tuple(
            _rows(h, part).to(part.dtype) * _sum(_E, [k[p] for k in stages])
            for p, part in enumerate(y)
        )
        size = norm(error, y, ahead).detach().double().nan_to_num(nan=torch.inf)
        take = (size <= 1) & (s != goal)

        def chosen(new: Parts, old: Parts, take: Tensor = take) -> Parts:
            return tuple(torch.where(_rows(take, a), a, b) for a, b in zip(new, old, strict=True))

        y, first = chosen(ahead, y), chosen(stages[-1], first)  # the last stage is the next's first
        s = torch.where(take, s + h, s)
        s = torch.where(take & ((s - goal).abs() < 1e-12), goal, s)
        h = h * (0.9 * size.clamp_min(1e-10) ** -0.2).clamp(0.2, 5.0)
    return y
