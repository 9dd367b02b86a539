"""Every random number by (seed, sample, step, purpose): a counter-based generator.

Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns the counter
(block, sample, step, purpose) under the key `seed` into four 32-bit words. Nothing is stored
between calls, so sample 17 of seed 3 gets the same numbers alone, in any batch, padded or not, on
any device and in any process; and a resumed training draws what the uninterrupted one would have.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Ten rounds of Philox-4x32 on broadcastable int64 tensors that hold unsigned 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The int64 product wraps modulo 2^64, which keeps all 64 bits of the unsigned product.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1, c2, c3]


@dataclass(frozen=True)
class Rng:
    """Random numbers for a batch of samples at one step.

    Args:
        seed: any integer; 64 bits of it are used.
        index: (B,) which samples these are: their number among all samples of the seed when
            sampling, their place in the global batch when training.
        step: position in the sampling loop, or the training step.
        total: size of the global batch, for stratified draws; None means len(index).
    """

    seed: int
    index: Int[Tensor, " b"]
    step: int = 0
    total: int | None = None

    def at(self, step: int) -> Rng:
        """The same samples at another step."""
        return replace(self, step=step)

    def _words(self, purpose: str, count: int, shared: bool = False) -> Int[Tensor, "b n"]:
        """`count` unsigned 32-bit words a sample (one row for all samples if `shared`)."""
        device = self.index.device
        index = self.index.to(torch.int64)[:, None]
        # No real sample has this number, so shared draws repeat nobody's.
        index = torch.full_like(index[:1], _MASK) if shared else index & _MASK
        block = torch.arange((count + 3) // 4, device=device)[None]
        step = torch.full((1, 1), self.step & _MASK, device=device)
        tag = torch.full((1, 1), zlib.crc32(purpose.encode()), device=device)
        words = philox((block, index, step, tag), (self.seed & _MASK, (self.seed >> 32) & _MASK))
        return torch.stack([w.expand(len(index), -1) for w in words], -1).flatten(1)[:, :count]

    def uniform(
        self, purpose: str, shape: tuple[int, ...] = (), shared: bool = False
    ) -> Float[Tensor, "b ..."]:
        """Uniform in (0, 1), float64, 32 bits of resolution; one row for all if `shared`."""
        words = self._words(purpose, math.prod(shape), shared)
        return ((words.double() + 0.5) * 2.0**-32).view(len(words), *shape)

    def normal(
        self,
        purpose: str,
        shape: tuple[int, ...],
        mask: Bool[Tensor, "b n"] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "b ..."]:
        """Standard normal numbers, Box-Muller.

        Args:
            purpose: what they are for; two purposes share nothing.
            shape: of one sample, without the batch axis.
            mask: True where a point of the first axis of `shape` is real. A sample's numbers go to
                its real points in order, so they do not depend on the padding, which gets zeros.
            dtype: of the result; drawn in float64 and rounded, so that the last bits of a device's
            log and cos do not show in float32.
        """
        count = math.prod(shape)
        words = self._words(purpose, count + (-count) % 4).double()
        u = (words * 2.0**-32 + 2.0**-33).view(len(words), -1, 2)
        radius = (-2 * u[..., 0].log()).sqrt()
        angle = (2 * math.pi) * u[..., 1]
        z = torch.stack([radius * angle.cos(), radius * angle.sin()], -1).flatten(1)[:, :count]
        z = z.view(len(z), *shape).to(dtype)
        if mask is None:
            return z
        rank = (mask.cumsum(1) - 1).clamp_min(0)
        rank = rank.view(*rank.shape, *[1] * (z.ndim - 2)).expand_as(z)
        return z.gather(1, rank) * mask.view(*mask.shape, *[1] * (z.ndim - 2)).to(dtype)
