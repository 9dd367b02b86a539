"""A number as many cosines of random frequency and phase, of unit magnitude whatever the number.

sqrt(2) cos(2 pi f x + p), f ~ N(0, 1), p ~ U(0, 2 pi): the mean square over features is 1 for any x
(Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models", app. B).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn


def c_noise(log_snr: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """EDM's ln(sigma / alpha) / 4, held in +-5: exact schedules end at infinite log-SNR."""
    return -log_snr.clamp(-40, 40) / 8


class Fourier(nn.Module):
    """Fixed random features of a number; the same ones in every process and every run.

    Args:
        channels: number of features.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        frequencies = torch.randn(channels, generator=generator)
        self.register_buffer("frequencies", 2 * math.pi * frequencies)
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels, generator=generator))

    def features(self, x: Float[Tensor, " b"]) -> Float[Tensor, "b channels"]:
        """Of each number, in the buffers' precision."""
        turns = x.to(self.frequencies.dtype)[:, None] * self.frequencies + self.phases
        return math.sqrt(2) * turns.cos()
