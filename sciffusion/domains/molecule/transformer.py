"""The plain denoiser: a transformer over atoms whose attention knows the molecular graph.

Coordinates enter by a linear map and come out by another; rotations are learnt from randomly
rotated data. Attention is biased by bond, path length and stereo of each pair. After DiTMC (Frank
et al. 2025) and AlphaFold 3's diffusion transformer (Abramson et al. 2024).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.core.geometry import full_precision
from sciffusion.domains.molecule.conditioner import Conditioner, each
from sciffusion.nn.attention import SelfAttention
from sciffusion.nn.blocks import zero_init
from sciffusion.nn.embeddings import LogSNREmbedding


def stereo_ranks(cond: Cond) -> Tensor:
    """(B, N, N) the place 1..4 of a neighbour around a stereo centre, 0 elsewhere.

    Neighbours stand in the order of the atoms' numbers, one of many that would do, turned so that
    the volume they span is to be positive: the order, not a sign, says which hand is asked for.
    """
    s = cond.structure
    centre, points = s["tetra"][..., :1], s["tetra"][..., 1:]
    flipped = points[..., [1, 0, 2, 3]]
    points = torch.where((s["tetra_sign"] < 0)[..., None], flipped, points)
    place = torch.arange(1, 5, device=points.device) * (s["tetra_sign"] != 0)[..., None]
    ranks = torch.zeros_like(s["bond"])
    rows = torch.arange(len(ranks), device=ranks.device)[:, None, None]
    # Padding adds 0 to the pair (0, 0).
    return ranks.index_put_((rows, centre.expand_as(points), points), place, accumulate=True)


class Block(nn.Module):
    """Attention and an MLP, modulated by the noise level and the atom (AdaLN-zero)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.modulate = nn.Sequential(nn.SiLU(), zero_init(nn.Linear(dim, 6 * dim)))
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False)
        self.attention = SelfAttention(dim, heads)
        # The gates are zero at first; with zero outputs too nothing would ever begin to learn.
        nn.init.xavier_uniform_(self.attention.out.weight)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(
        self,
        s: Float[Tensor, "b n d"],
        told: Float[Tensor, "b n d"],
        bias: Float[Tensor, "b h n n"],
    ) -> Float[Tensor, "b n d"]:
        """s after this block."""
        a1, b1, g1, a2, b2, g2 = self.modulate(told).chunk(6, -1)
        s = s + g1 * self.attention(self.norm1(s) * (1 + a1) + b1, bias)
        return s + g2 * self.mlp(self.norm2(s) * (1 + a2) + b2)


class GraphTransformer(nn.Module):
    """Attention of atoms, its biases from the graph; what a subclass's `layers` are is its own.

    Args:
        heads: of each layer, a function of (atoms, what they are told, bias).
    """

    layers: nn.ModuleList

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    @abstractmethod
    def prepare(self, cond: Cond) -> Cond:
        """`cond` with `known_atoms` and `known_biases`, which do not depend on the coordinates."""

    @abstractmethod
    def started(
        self, x: Float[Tensor, "b n 3"], log_snr: Float[Tensor, " b"], known: Float[Tensor, "b n d"]
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
        """(atoms before the first layer, what every layer is told)."""

    @abstractmethod
    def answer(self, s: Float[Tensor, "b n d"]) -> Float[Tensor, "b n 3"]:
        """From atoms after the last layer."""

    def by_layer(
        self, biases: Float[Tensor, "b lh n n"], cond: Cond
    ) -> Float[Tensor, "b layers h n n"]:
        """What the graph adds to the attention of each layer; padding is never attended to."""
        unknown = ~cond.structure["mask"][:, None, None, None]
        return biases.unflatten(1, (len(self.layers), self.heads)).masked_fill(unknown, -torch.inf)

    def forward(
        self, x: Float[Tensor, "b n 3"], log_snr: Float[Tensor, " b"], cond: Cond
    ) -> Float[Tensor, "b n 3"]:
        """The network's answer F for coordinates scaled to unit size."""
        mask = cond.structure["mask"]
        cond = cond if "known_biases" in cond.structure else self.prepare(cond)
        s, told = self.started(x, log_snr, cond.structure["known_atoms"])
        for layer, bias in zip(self.layers, cond.structure["known_biases"].unbind(1), strict=True):
            s = layer(s, told, bias)
        moved = self.answer(s) * mask[..., None]
        mean = moved.sum(1, keepdim=True) / mask.sum(1)[:, None, None]
        return (moved - mean) * mask[..., None]


class ConformerTransformer(GraphTransformer):
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
        self.known = Conditioner(dim, pair_dim, bond_layers)
        self.ranks = nn.Embedding(5, pair_dim)
        self.biases = nn.Sequential(nn.SiLU(), nn.Linear(pair_dim, layers * heads))
        self.noise = LogSNREmbedding(dim)
        self.place = nn.Linear(3, dim)
        self.layers = nn.ModuleList(Block(dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.out = zero_init(nn.Linear(dim, 3))

    @full_precision
    def _placed(self, x: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n d"]:
        return self.place(x.float())

    @full_precision
    def answer(self, s: Float[Tensor, "b n d"]) -> Float[Tensor, "b n 3"]:
        return self.out(self.norm(s.float()))

    def prepare(self, cond: Cond) -> Cond:
        """`cond` with what does not depend on the coordinates."""
        cond = self.known.prepare(cond)
        return cond.with_structure(known_biases=self._biases(cond))

    def _biases(self, cond: Cond) -> Float[Tensor, "b layers h n n"]:
        pair = self.known(cond)[1] + self.ranks(stereo_ranks(cond)).permute(0, 3, 1, 2)
        return self.by_layer(each(self.biases[1], self.biases[0](pair)), cond)

    def started(
        self, x: Float[Tensor, "b n 3"], log_snr: Float[Tensor, " b"], known: Float[Tensor, "b n d"]
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
        return known + self._placed(x), known + self.noise(log_snr)[:, None]
