"""Layers that start harmless: zero-initialised outputs, and norms modulated by a condition.

A residual branch whose last layer is zero makes a new network the identity (or, at its head, the
zero function), which is what makes deep diffusion networks train stably (Dhariwal & Nichol 2021).
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def zero_init(module: ModuleT) -> ModuleT:
    """The same module with every parameter set to zero."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


def norm_groups(channels: int) -> int:
    """Groups of a group norm: at most 32, each of four channels or more (Karras et al. 2022)."""
    if channels % 4:
        raise ValueError(f"channels must be a multiple of 4, got {channels}")
    return math.gcd(32, channels // 4)


class GroupNorm(nn.GroupNorm):
    """Group normalisation with `norm_groups` groups; statistics are float32 or finer."""

    def __init__(self, channels: int) -> None:
        super().__init__(norm_groups(channels), channels)


class AdaptiveGroupNorm(nn.Module):
    """Group norm whose scale and shift come from a condition: `norm(x) (1 + scale) + shift`.

    It has no parameters: the layer that makes `film` holds them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = norm_groups(channels)

    def forward(
        self, x: Float[Tensor, "b c h w"], film: Float[Tensor, "b two_c 1 1"]
    ) -> Float[Tensor, "b c h w"]:
        """Normalise and modulate; `film` holds scale and shift, in that order."""
        scale, shift = film.chunk(2, dim=1)
        return torch.addcmul(shift, F.group_norm(x, self.groups), 1 + scale)
