"""Rigid geometry of point clouds, batched and masked: centring, Kabsch, random rotations.

Always in at least float32, outside autocast. Points (B, N, 3) may come in groups (B, N, A, 3), such
as a residue's atoms; a mask (B, N) tells real groups.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sciffusion.core.rng import Rng

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(fn: Callable[P, R]) -> Callable[P, R]:
    """A function outside autocast, which would round a bond of 1.5 Angstrom to 0.01."""

    @wraps(fn)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return fn(*args, **kwargs)

    return wrapped


def _flat(
    x: Float[Tensor, "b *n 3"], mask: Bool[Tensor, "b n"] | None
) -> tuple[Float[Tensor, "b m 3"], Float[Tensor, "b m 1"]]:
    """(points in a row, 1 where they are real)."""
    real = torch.ones_like(x[..., :1])
    if mask is not None:
        real = real * mask.view(*mask.shape, *[1] * (x.ndim - 2)).to(x.dtype)
    return x.flatten(1, -2), real.flatten(1, -2)


def centre(
    x: Float[Tensor, "b *n 3"], mask: Bool[Tensor, "b n"] | None = None
) -> Float[Tensor, "b *n 3"]:
    """x with the mean of its real points at the origin and its padding at zero."""
    points, w = _flat(x, mask)
    middle = (points * w).sum(1, keepdim=True) / w.sum(1, keepdim=True).clamp_min(1)
    return ((points - middle) * w).view_as(x)


@full_precision
def superposition(
    x: Float[Tensor, "b *n 3"],
    y: Float[Tensor, "b *n 3"],
    mask: Bool[Tensor, "b n"] | None = None,
) -> tuple[Float[Tensor, "b 3 3"], Float[Tensor, "b 1 3"], Float[Tensor, "b 1 3"]]:
    """(R, from, to): (points - from) @ R + to moves x onto y with the least squared distance.

    R is a proper rotation, never a reflection (Kabsch 1976), and carries no gradient.
    """
    work = torch.promote_types(x.dtype, torch.float32)
    (a, w), (b, _) = _flat(x.to(work), mask), _flat(y.to(work), mask)
    n = w.sum(1, keepdim=True).clamp_min(1)
    mean_a, mean_b = ((v * w).sum(1, keepdim=True) / n for v in (a, b))
    with torch.no_grad():
        u, _, vt = torch.linalg.svd(((a - mean_a) * w).mT @ (b - mean_b))
        flip = torch.ones(len(x), 3, dtype=work, device=x.device)
        flip[:, 2] = torch.det(u @ vt).sign()
        rotation = (u * flip[:, None]) @ vt
    return rotation, mean_a, mean_b


@full_precision
def kabsch(
    x: Float[Tensor, "b *n 3"],
    y: Float[Tensor, "b *n 3"],
    mask: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b *n 3"]:
    """x moved rigidly onto y with the least squared distance; never reflected (Kabsch 1976).

    The result carries no gradient of the rotation.
    """
    rotation, mean_a, mean_b = superposition(x, y, mask)
    a, w = _flat(x.to(rotation.dtype), mask)
    moved: Tensor = ((a - mean_a) @ rotation + mean_b) * w
    return moved.view_as(x).to(x.dtype)


def random_rotations(
    rng: Rng, purpose: str = "rotation", dtype: torch.dtype = torch.float32
) -> Float[Tensor, "b 3 3"]:
    """Rotations uniform on SO(3), from normalised quaternions (Shoemake 1992)."""
    q = rng.normal(purpose, (4,), dtype=dtype)
    w, x, y, z = (q / q.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, 1).view(-1, 3, 3)
