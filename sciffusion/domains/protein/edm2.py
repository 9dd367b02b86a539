"""The plain denoiser of backbones in layers that keep magnitudes (EDM2, Karras et al. 2024).

What `TransformerBackbone` is, layer by layer: the same things are seen of residues and pairs. No
layer norms with weights, no biases; every weight has unit rows, so one learning rate suits all.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.domains.protein.embedding import CODES, SHARES, both_distances, what_is_said
from sciffusion.domains.protein.features import PLACES, Radial, relative_place
from sciffusion.domains.protein.transformer import NUMBERS, PlainBackbone, Positions
from sciffusion.nn.magnitude import (
    MPEmbedding,
    MPLinear,
    known_size,
    mp_mean,
    mp_silu,
    mp_sum,
    normalize,
)
from sciffusion.nn.magnitude_blocks import MPBlock, MPLabel, MPLevel

FEATURES = 64
"""Fourier features of the noise level."""


class MPTold(nn.Module):
    """The condition of a residue: (B, L, dim), and the noise level with the rest: (B, dim).

    Args:
        dim: width.
        classes: of `cond.condition["label"]`; 0 for none.
    """

    def __init__(self, dim: int, classes: int = 0) -> None:
        super().__init__()
        self.fold, self.share = MPEmbedding(CODES, dim), MPLinear(SHARES + 1, dim)
        self.noise = MPLevel(dim, FEATURES)
        self.label = MPLabel(classes, dim) if classes else None

    def forward(
        self, log_snr: Float[Tensor, " b"], cond: Cond
    ) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b d"]]:
        """Both, of unit magnitude; what is not said is told as not known."""
        codes, said = what_is_said(cond)
        residue = self.fold(codes)
        parts = [self.noise(log_snr), self.share(known_size(said.to(residue.dtype)))]
        if self.label is not None:
            parts.append(self.label(cond, len(codes)))
        return residue, mp_silu(mp_mean(*parts))


class MPPairs(nn.Module):
    """What two residues are told of each other: place along the chain, distances now and before.

    Args:
        dim: width of a pair.
        radial: Gaussians of a distance.
    """

    def __init__(self, dim: int, radial: int = 16) -> None:
        super().__init__()
        self.radial = Radial(radial)
        self.place, self.seen = MPEmbedding(PLACES, dim), MPLinear(2 * radial + 1, dim)

    def forward(
        self,
        x: Float[Tensor, "b l 4 3"],
        before: Float[Tensor, "b l 4 3"],
        known: Tensor,
        cond: Cond,
    ) -> Float[Tensor, "b l l d"]:
        """Pairs, of unit magnitude."""
        place = self.place(relative_place(cond))
        seen = both_distances(self.radial, x, before, known)[0]
        return mp_silu(mp_sum(place, self.seen(known_size(seen).to(place.dtype)), 0.5))


class MPTransformerBackbone(PlainBackbone):
    """Noisy backbones in, a vector for each atom out; not equivariant.

    Args:
        dim: width of a residue, a multiple of `heads`.
        layers, heads: of the network.
        pair_dim: width of what two residues are told of each other.
        radial: Gaussians of a distance.
        classes: of labels; 0 for none.
        scale: spread of the data in Angstrom, sigma_data.
    """

    def __init__(
        self,
        dim: int = 192,
        layers: int = 8,
        heads: int = 8,
        pair_dim: int = 32,
        radial: int = 16,
        classes: int = 0,
        scale: float = 8.0,
    ) -> None:
        super().__init__(dim, heads, scale)
        self.heads = heads
        self.told, self.pairs = MPTold(dim, classes), MPPairs(pair_dim, radial)
        self.first, self.second = MPLinear(NUMBERS + 1, dim), MPLinear(dim, dim)
        self.biases = MPLinear(pair_dim, layers * heads, gain=1.0)
        self.layers = nn.ModuleList(MPBlock(dim, heads) for _ in range(layers))
        self.head = MPLinear(dim, 12, gain=0.0)

    def answer(
        self,
        seen: Float[Tensor, "b l f"],
        log_snr: Float[Tensor, " b"],
        positions: Positions,
        cond: Cond,
    ) -> Float[Tensor, "b l 12"]:
        residue, level = self.told(log_snr, cond)
        seen = self.second(mp_silu(self.first(known_size(seen).to(residue.dtype))))
        biases = self.biases(self.pairs(*positions, cond)).permute(0, 3, 1, 2)
        biases = biases.masked_fill(~cond.structure["mask"][:, None, None], -torch.inf)
        h = mp_sum(residue, seen, 0.7)
        for layer, bias in zip(self.layers, biases.split(self.heads, 1), strict=True):
            h = layer(h, level[:, None], bias)
        found: Tensor = self.head(normalize(h, -1))
        return found
