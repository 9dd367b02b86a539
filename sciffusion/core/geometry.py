"""Rigid geometry of point clouds, batched and masked: centring, Kabsch, random rotations.

Always in at least float32, outside autocast.
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


def centre(
    x: Float[Tensor, "b n 3"], mask: Bool[Tensor, "b n"] | None = None
) -> Float[Tensor, "b n 3"]:
    """x with the mean of its real points at the origin and its padding at zero."""
    if mask is None:
        return x - x.mean(1, keepdim=True)
    w = mask[..., None].to(x.dtype)
    return (x - (x * w).sum(1, keepdim=True) / w.sum(1, keepdim=True).clamp_min(1)) * w


@full_precision
def kabsch(
    x: Float[Tensor, "b n 3"],
    y: Float[Tensor, "b n 3"],
    mask: Bool[Tensor, "b n"] | None = None,
) -> Float[Tensor, "b n 3"]:
    """x moved rigidly onto y with the least squared distance; never reflected (Kabsch 1976).

    The result carries no gradient of the rotation.
    """
    work = torch.promote_types(x.dtype, torch.float32)
    a, b = x.to(work), y.to(work)
    w = torch.ones_like(a[..., :1]) if mask is None else mask[..., None].to(work)
    n = w.sum(1, keepdim=True).clamp_min(1)
    mean_a, mean_b = ((v * w).sum(1, keepdim=True) / n for v in (a, b))
    a = a - mean_a
    with torch.no_grad():
        u, _, vt = torch.linalg.svd((a * w).mT @ (b - mean_b))
        flip = torch.ones(len(x), 3, dtype=work, device=x.device)
        flip[:, 2] = torch.det(u @ vt).sign()
        rotation = (u * flip[:, None]) @ vt
    moved: Tensor = (a @ rotation + mean_b) * w
    return moved.to(x.dtype)


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
