"""Likelihoods of data with levels, such as pixels, from the density of dequantised ones."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from sciffusion.core.rng import Rng

PIXEL = 2 / 255
"""Width of one of 256 levels where pixels 0..255 are scaled to [-1, 1]."""


def bits_per_dim(
    log_prob: Float[Tensor, " b"], dim: Float[Tensor, " b"], width: float = PIXEL
) -> Float[Tensor, " b"]:
    """Bits per dimension of discrete data from the log-density of uniformly dequantised ones.

    -(log p(x + u) / dim + log width) / log 2, u uniform over a level: in expectation an upper bound
    of the discrete model's (Theis et al. 2016, sec. 3.1).

    Args:
        log_prob: in nats.
        dim: numbers of each sample.
        width: of a level in the data's scale: 2/255 where 0..255 are scaled to [-1, 1].
    """
    return -(log_prob / dim + math.log(width)) / math.log(2)


def dequantised(
    x0: Float[Tensor, "b ..."], rng: Rng, width: float = PIXEL
) -> Float[Tensor, "b ..."]:
    """Discrete data with uniform noise as wide as a level, about its middle."""
    u = rng.uniform("dequantise", tuple(x0.shape[1:])).to(x0.dtype)
    return x0 + width * (u - 0.5)
