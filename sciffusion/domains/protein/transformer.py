"""The plain denoiser of backbones: a transformer whose attention is biased by pairs.

Of AlphaFold 3's kind (Abramson et al. 2024): coordinates go in and come out as numbers, and what
equivariance there is was learned from randomly turned training data. Pairs are told their place
along the chain and their distances, now and in the last thought. In place of triangle updates there
is nothing, as in Proteina (Geffner et al. 2025).
"""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.core.geometry import centre
from sciffusion.domains.protein.embedding import Pairs, Told
from sciffusion.domains.protein.features import CA, Local, previous
from sciffusion.nn.attention import attend
from sciffusion.nn.blocks import zero_init

NUMBERS = 2 * 12 + 2 * 9 + Local.features
"""What is seen of a residue."""
Positions = tuple[Tensor, Tensor, Tensor]
"""(B, L, 4, 3) in Angstrom now and in the last thought, and (B,) whether there is one."""


def seen_of_residues(
    local: Local,
    x: Float[Tensor, "b l 4 3"],
    before: Float[Tensor, "b l 4 3"],
    log_snr: Float[Tensor, " b"],
    cond: Cond,
) -> Float[Tensor, "b l f"]:
    """Invariants of a residue, and where its atoms lie now and lay in the last thought."""
    seen = [local(x, log_snr, cond)[0]]
    for y in (x, before):
        # Where CA lies, and at the size of bonds what stands around it
        around = (y - y[:, :, CA : CA + 1])[:, :, [0, 2, 3]]
        seen += [y.flatten(2) / local.scale, around.flatten(2).clamp(-8, 8)]
    return torch.cat(seen, -1)


class PairBiasLayer(nn.Module):
    """Attention with a bias for each pair, then an MLP; both modulated by the noise level."""

    def __init__(self, dim: int, heads: int, pair: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.modulate = zero_init(nn.Linear(dim, 6 * dim))
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.bias = nn.Linear(pair, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))

    def forward(
        self,
        h: Float[Tensor, "b l d"],
        level: Float[Tensor, "b d"],
        pair: Float[Tensor, "b l l p"],
        mask: Tensor,
    ) -> Float[Tensor, "b l d"]:
        """One round."""
        a1, b1, g1, a2, b2, g2 = self.modulate(level)[:, None].chunk(6, -1)
        bias = self.bias(pair).permute(0, 3, 1, 2).masked_fill(~mask[:, None, None], -torch.inf)
        qkv = self.qkv(self.norm(h) * (1 + a1) + b1).unflatten(-1, (3, self.heads, -1))
        fixed = F.rms_norm(qkv[:, :, :2], qkv.shape[-1:])  # of fixed length: logits stay small
        qkv = torch.cat([fixed, qkv[:, :, 2:]], 2).flatten(2)
        h = h + (1 + g1) * self.out(attend(qkv, self.heads, bias.to(qkv.dtype)))
        return h + (1 + g2) * self.mlp(self.norm(h) * (1 + a2) + b2)


class PlainBackbone(nn.Module):
    """What denoisers of backbones that are not equivariant share: what is seen, and the mask.

    Args:
        dim: width of a residue, a multiple of `heads`.
        heads: of the attention.
        scale: spread of the data in Angstrom, sigma_data.

    Raises:
        ValueError: a width that does not divide.
    """

    self_conditioned = True
    few_shapes = True

    def __init__(self, dim: int, heads: int, scale: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"model.heads={heads} must divide model.dim={dim}")
        self.scale = scale
        self.local = Local(scale)

    @abstractmethod
    def answer(
        self,
        seen: Float[Tensor, "b l f"],
        log_snr: Float[Tensor, " b"],
        positions: Positions,
        cond: Cond,
    ) -> Float[Tensor, "b l 12"]:
        """Of each residue's atoms, from what is seen of it and of pairs."""
        ...

    def forward(
        self, x: Float[Tensor, "b l 4 3"], log_snr: Float[Tensor, " b"], cond: Cond
    ) -> Float[Tensor, "b l 4 3"]:
        """The network's answer F for coordinates scaled to unit size."""
        mask = cond.structure["mask"]
        x = centre(x.to(torch.promote_types(x.dtype, torch.float32)), mask) * self.scale
        before, known = previous(cond, x)
        seen = seen_of_residues(self.local, x, before, log_snr, cond)
        answer = self.answer(seen, log_snr, (x, before, known), cond).to(x.dtype)
        return answer.unflatten(-1, (4, 3)) * mask[..., None, None]


class TransformerBackbone(PlainBackbone):
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
        self.told, self.pairs = Told(dim, classes), Pairs(pair_dim, radial)
        self.first = nn.Sequential(nn.Linear(NUMBERS, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.layers = nn.ModuleList(PairBiasLayer(dim, heads, pair_dim) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.head = zero_init(nn.Linear(dim, 12))

    def answer(
        self,
        seen: Float[Tensor, "b l f"],
        log_snr: Float[Tensor, " b"],
        positions: Positions,
        cond: Cond,
    ) -> Float[Tensor, "b l 12"]:
        residue, level = self.told(log_snr, cond)
        pair, _ = self.pairs(*positions, cond)
        h = self.first(seen.to(residue.dtype)) + residue
        for layer in self.layers:
            h = layer(h, level, pair, cond.structure["mask"])
        found: Tensor = self.head(self.norm(h + level[:, None]))
        return found
