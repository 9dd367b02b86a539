"""The plain conformer denoiser in layers that keep magnitudes (EDM2, Karras et al. 2024).

What `ConformerTransformer` is, layer by layer: atoms mixed along bonds, a transformer over atoms
whose attention is biased by bond, path and stereo of each pair. No layer norms with weights, no
biases; every weight has unit rows, so one learning rate suits all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.core.geometry import full_precision
from sciffusion.domains.molecule.conditioner import mapped, neighbours_along_bonds, pair_codes
from sciffusion.domains.molecule.data import BOND_CODES, MOST_HOPS
from sciffusion.domains.molecule.graph import ATOM_FEATURES
from sciffusion.domains.molecule.transformer import GraphTransformer, stereo_ranks
from sciffusion.nn.magnitude import (
    MPEmbedding,
    MPLinear,
    mp_mean,
    mp_silu,
    mp_sum,
    normalize,
    with_one,
)
from sciffusion.nn.magnitude_blocks import MPBlock, MPLevel

FEATURES = 64
"""Fourier features of the noise level."""


class MPBondRound(nn.Module):
    """Messages along bonds, then an MLP of each atom, as residual branches.

    Args:
        dim: width of an atom.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ends, self.out = MPLinear(dim, 2 * dim), MPLinear(dim, dim)
        self.wide, self.narrow = MPLinear(dim, 2 * dim), MPLinear(2 * dim, dim)

    def forward(
        self,
        h: Float[Tensor, "b n dim"],
        j: Tensor,
        bonded: Float[Tensor, "b n k 1"],
        edge: Float[Tensor, "b n k dim"],
    ) -> Float[Tensor, "b n dim"]:
        """Atoms that know their neighbours `j`; messages of `bonded` 0 do not count."""
        rows = torch.arange(len(h), device=h.device)[:, None, None]
        own, other = self.ends(normalize(h, -1)).chunk(2, -1)
        message = mp_silu(mp_mean(own[:, :, None], other[rows, j], edge.to(own.dtype)))
        heard = (message * bonded).sum(2) * bonded.sum(2).clamp_min(1).rsqrt()
        h = mp_sum(h, self.out(heard.to(own.dtype)))
        return mp_sum(h, self.narrow(mp_silu(self.wide(normalize(h, -1)))))


class MPConformerTransformer(GraphTransformer):
    """Coordinates in, a vector for each atom out.

    Args:
        dim: width of an atom; a multiple of `heads`.
        pair_dim: width of a pair, from which the attention biases of all layers come.
        layers, heads: of the transformer.
        bond_layers: rounds of messages along bonds beforehand.
    """

    def __init__(
        self, dim: int = 128, pair_dim: int = 32, layers: int = 6, heads: int = 8,
        bond_layers: int = 3,
    ) -> None:  # fmt: skip
        super().__init__(heads)
        self.atoms = nn.ModuleList(MPEmbedding(n, dim) for n in ATOM_FEATURES.values())
        self.edge = MPEmbedding(BOND_CODES, dim)
        self.rounds = nn.ModuleList(MPBondRound(dim) for _ in range(bond_layers))
        self.bond, self.hops = (
            MPEmbedding(BOND_CODES, pair_dim),
            MPEmbedding(MOST_HOPS + 2, pair_dim),
        )
        self.side, self.ranks = MPEmbedding(3, pair_dim), MPEmbedding(5, pair_dim)
        self.ends = MPLinear(dim, 2 * pair_dim)
        self.biases = MPLinear(pair_dim, layers * heads, gain=1.0)
        self.noise = MPLevel(dim, FEATURES)
        self.place = MPLinear(4, dim)
        self.layers = nn.ModuleList(MPBlock(dim, heads) for _ in range(layers))
        self.out = MPLinear(dim, 3, gain=0.0)

    @full_precision
    def _placed(self, x: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n d"]:
        return self.place(with_one(x.to(torch.promote_types(x.dtype, torch.float32)), -1))

    @full_precision
    def answer(self, s: Float[Tensor, "b n d"]) -> Float[Tensor, "b n 3"]:
        return self.out(normalize(s.to(torch.promote_types(s.dtype, torch.float32)), -1))

    def prepare(self, cond: Cond) -> Cond:
        """`cond` with what does not depend on the coordinates."""
        h = self._known(cond)
        return cond.with_structure(known_atoms=h, known_biases=self._biases(h, cond))

    def _known(self, cond: Cond) -> Float[Tensor, "b n d"]:
        """Atoms that know their neighbourhood."""
        categories = cond.structure["atoms"]
        h = mp_mean(*(e(categories[..., k]) for k, e in enumerate(self.atoms)))
        code, j = neighbours_along_bonds(cond)
        bonded, edge = (code > 0)[..., None].to(h.dtype), self.edge(code)
        for part in self.rounds:
            h = part(h, j, bonded, edge)
        return normalize(h, -1)

    def _biases(self, h: Float[Tensor, "b n d"], cond: Cond) -> Float[Tensor, "b layers h n n"]:
        own, other = self.ends(h).mT.chunk(2, 1)
        tables = [e.unit().to(own.dtype) for e in (self.bond, self.hops, self.side, self.ranks)]
        known = F.embedding(*pair_codes(cond, *tables[:3])).permute(0, 3, 1, 2)
        ranks = F.embedding(stereo_ranks(cond), tables[3]).permute(0, 3, 1, 2)
        pair = (known + ranks + own[..., None] + other[:, :, None]) * 6**-0.5
        pair = mp_silu(pair.contiguous())
        return self.by_layer(mapped(self.biases.effective().to(pair.dtype), pair), cond)

    def started(
        self, x: Float[Tensor, "b n 3"], log_snr: Float[Tensor, " b"], known: Float[Tensor, "b n d"]
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
        told = mp_silu(mp_sum(known, self.noise(log_snr)[:, None], 0.5))
        return mp_sum(known, self._placed(x).to(known.dtype), 0.5), told
