"""The SO(3)-equivariant denoiser of backbones, in e3nn irreps.

Residues are points (CA) that carry scalars and vectors. A layer passes messages between near
residues by channel-wise tensor products with spherical harmonics, lets all residues attend to all
with values that are irreps, and thinks about each residue by itself; CA moves as it goes. Parity is
not tracked, so handedness is seen: a mirror image gets another answer. The answer is a combination
of vectors that turn with the backbone. After Tensor Field Networks (Thomas et al. 2018), Equiformer
(Liao & Smidt 2023) and EDM's preconditioning (Karras et al. 2022).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.core.geometry import centre, full_precision
from sciffusion.domains.protein.embedding import Pairs, Told
from sciffusion.domains.protein.features import (
    CA,
    PLACES,
    Local,
    Radial,
    distances,
    neighbours,
    previous,
    relative_place,
)
from sciffusion.nn.blocks import zero_init
from sciffusion.nn.equivariant import (
    Blocks,
    IrrepsLinear,
    IrrepsNorm,
    SelfProduct,
    added,
    invariants,
    scaled,
    spherical_harmonics,
    widths,
)
from sciffusion.nn.products import neighbour_product

REACH = 10.0
"""Angstrom by which vectors between residues are divided."""


class Messages(nn.Module):
    """Near residues' features times harmonics of where they lie, weighed by what both are."""

    def __init__(
        self, width: list[int], edge: list[int], radial: int, hidden: int, backend: str
    ) -> None:
        super().__init__()
        self.send = IrrepsLinear(width, edge)
        self.product = neighbour_product(edge, len(width) - 1, backend)
        self.own, self.other = nn.Linear(width[0], hidden), nn.Linear(width[0], hidden)
        self.apart, self.place = nn.Linear(radial, hidden), nn.Embedding(PLACES, hidden)
        self.weigh = nn.Linear(hidden, self.product.weight_numel)
        self.out = IrrepsLinear(self.product.width_out, width)

    def forward(
        self,
        h: Blocks,
        index: Int[Tensor, "b l k"],
        real: Bool[Tensor, "b l k"],
        sh: Float[Tensor, "b l k s"],
        radial: Float[Tensor, "b l k r"],
        place: Int[Tensor, "b l k"],
    ) -> Blocks:
        """The sum over near residues."""
        rows = torch.arange(len(index), device=index.device)[:, None, None]
        scalars = h[0].squeeze(-2)
        told = self.own(scalars)[:, :, None] + self.other(scalars)[rows, index]
        weight = self.weigh(F.silu(told + self.apart(radial) + self.place(place)))
        weight = weight * (real[..., None] / real.shape[-1] ** 0.5).to(weight.dtype)
        sent = [v[rows, index] for v in self.send(h)]
        return self.out(self.product(sent, sh.to(weight.dtype), weight))


class Attention(nn.Module):
    """All residues to all: logits of scalars and distances, values of irreps, and directions."""

    def __init__(self, width: list[int], value: list[int], heads: int, pair: int) -> None:
        super().__init__()
        self.heads = heads
        self.qk, self.value = nn.Linear(width[0], 2 * width[0]), IrrepsLinear(width, value)
        self.sharpness = nn.Parameter(torch.ones(heads, 1, 1))
        self.bias = nn.Linear(pair, heads)
        self.far = nn.Parameter(torch.zeros(heads, 1, 1))
        self.out = IrrepsLinear([value[0], value[1] + heads, *value[2:]], width)

    def forward(
        self,
        h: Blocks,
        y: Float[Tensor, "b l 3"],
        pair: Float[Tensor, "b l l p"],
        mask: Bool[Tensor, "b l"],
    ) -> Blocks:
        """What each residue gathers."""
        q, k = self.qk(h[0].squeeze(-2)).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (F.rms_norm(p, p.shape[-1:]) for p in (q, k))  # of fixed length: logits stay small
        logits = (q * (self.sharpness * q.shape[-1] ** -0.5).to(q.dtype)) @ k.mT
        logits = logits + self.bias(pair).permute(0, 3, 1, 2)
        near = F.softplus(self.far) * torch.log1p(distances(y))[:, None]
        share = (logits - near).masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)
        values = [v.unflatten(3, (self.heads, -1)).permute(0, 3, 1, 2, 4) for v in self.value(h)]
        rows = torch.cat([v.flatten(3) for v in values], -1)
        got = (share.to(rows.dtype) @ rows).split([v.shape[3] * v.shape[4] for v in values], -1)
        found = [
            g.unflatten(3, v.shape[3:]).permute(0, 2, 3, 1, 4).flatten(3)
            for g, v in zip(got, values, strict=True)
        ]
        found[1] = torch.cat([found[1], _towards(share, y).to(rows.dtype)], -1)
        return self.out(found)


@full_precision
def _towards(share: Float[Tensor, "b h l l"], y: Float[Tensor, "b l 3"]) -> Tensor:
    """Where the attended residues lie from here, (B, L, 3, heads)."""
    mean = share.to(y.dtype) @ y[:, None]
    return (mean - y[:, None]).permute(0, 2, 3, 1) / REACH


class Thinking(nn.Module):
    """A residue by itself: products of its vectors, an MLP of its invariants, gates on the rest."""

    def __init__(self, width: list[int], mixed: list[int]) -> None:
        super().__init__()
        self.one, self.two = IrrepsLinear(width, mixed), IrrepsLinear(width, mixed)
        self.products = SelfProduct(mixed, len(width) - 1)
        both = [a + b for a, b in zip(width, self.products.width_out, strict=True)]
        self.gather = IrrepsLinear(both, width)
        self.mlp = nn.Sequential(
            nn.Linear(sum(width), 3 * width[0]), nn.SiLU(), nn.Linear(3 * width[0], sum(width))
        )

    def forward(self, h: Blocks) -> Blocks:
        """Think."""
        made = self.products(self.one(h), self.two(h))
        mixed = self.gather([torch.cat(pair, -1) for pair in zip(h, made, strict=True)])
        answer = self.mlp(invariants(mixed))
        scalars = answer[..., None, : mixed[0].shape[-1]]
        return [scalars, *scaled(mixed[1:], answer[..., mixed[0].shape[-1] :])]


class BackboneLayer(nn.Module):
    """One round: near, far, self; then CA moves."""

    def __init__(
        self, width: list[int], edge: list[int], value: list[int], mixed: list[int],
        heads: int, pair: int, radial: int, hidden: int, backend: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.parts = [sum(width)] * 4 + [width[0]] * 2
        self.norm = IrrepsNorm()
        self.modulate = zero_init(nn.Linear(width[0], sum(self.parts)))
        self.near = Messages(width, edge, radial, hidden, backend)
        self.far = Attention(width, value, heads, pair)
        self.think = Thinking(width, mixed)
        self.move = nn.Linear(width[1], 1, bias=False)

    def forward(
        self,
        h: Blocks,
        y: Float[Tensor, "b l 3"],
        level: Float[Tensor, "b d"],
        edges: tuple[Tensor, Tensor, Tensor],
        pair: Float[Tensor, "b l l p"],
        radial: Radial,
        mask: Bool[Tensor, "b l"],
    ) -> tuple[Blocks, Float[Tensor, "b l 3"]]:
        """(h, y) after this round; y is CA in Angstrom."""
        scale1, gate1, scale2, gate2, shift1, shift2 = (
            1 + m if k < 4 else m
            for k, m in enumerate(self.modulate(level)[:, None].split(self.parts, -1))
        )
        way, length = _ways(y, edges[0])
        n = self._modulated(h, scale1, shift1)
        sh = spherical_harmonics(self.near.product.lmax, way)
        got = self.near(n, *edges[:2], sh, radial(length).to(n[0].dtype), edges[2])
        got = added(got, self.far(n, y, pair, mask))
        h = added(h, scaled(got, gate1))
        h = added(h, scaled(self.think(self._modulated(h, scale2, shift2)), gate2))
        return h, y + self.move(self.norm(h)[1]).squeeze(-1).to(y.dtype)

    def _modulated(self, h: Blocks, scale: Tensor, shift: Tensor) -> Blocks:
        scalars, *others = scaled(self.norm(h), scale)
        return [scalars + shift[..., None, :], *others]


@full_precision
def _ways(y: Float[Tensor, "b l 3"], index: Int[Tensor, "b l k"]) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(y), device=y.device)[:, None, None]
    way = y[rows, index] - y[:, :, None]
    return way, (way.square().sum(-1) + 1e-6).sqrt()


class EquivariantBackbone(nn.Module):
    """Noisy backbones in, a vector for each atom out.

    Args:
        irreps: of a residue, even, scalars first; their scalars a multiple of `heads`.
        edge: of what is sent to near residues.
        value: of what is attended to; multiplicities are multiples of `heads`.
        mixed: of what a residue multiplies with itself.
        layers, heads: of the network.
        pair_dim: width of what two residues are told of each other.
        along, near: neighbours each way along the chain, and the nearest in space.
        hidden: width of the radial networks.
        radial: Gaussians of a distance.
        classes: of labels; 0 for none.
        ends: sines and cosines of how far a residue is from its chain's ends; 0 for none.
        scale: spread of the data in Angstrom, sigma_data.
        backend: of the tensor products, see `nn.products`.
    """

    self_conditioned = True
    few_shapes = True

    def __init__(
        self,
        irreps: str = "128x0e + 32x1e",
        edge: str = "32x0e + 16x1e",
        value: str = "64x0e + 16x1e",
        mixed: str = "16x0e + 16x1e",
        layers: int = 6,
        heads: int = 8,
        pair_dim: int = 32,
        along: int = 3,
        near: int = 10,
        hidden: int = 48,
        radial: int = 16,
        classes: int = 0,
        ends: int = 0,
        scale: float = 8.0,
        backend: str = "own",
    ) -> None:
        super().__init__()
        self.width, *parts = (widths(i) for i in (irreps, edge, value, mixed))
        if len({len(self.width), *map(len, parts)}) > 1 or len(self.width) < 2:
            raise ValueError("irreps, edge, value and mixed must go to the same l, 1 or more")
        if any(c % heads for c in [self.width[0], *parts[1]]):
            raise ValueError(f"heads={heads} must divide the scalars of irreps and all of value")
        dim = self.width[0]
        self.scale, self.along, self.near = scale, along, near
        self.local, self.local_before = Local(scale), Local(scale)
        self.told, self.pairs = Told(dim, classes, ends), Pairs(pair_dim, radial)
        self.radial = Radial(radial)
        self.first = nn.Sequential(
            nn.Linear(2 * Local.features + 1, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.vectors = nn.Linear(2 * Local.vectors + 1, self.width[1], bias=False)
        self.layers = nn.ModuleList(
            BackboneLayer(self.width, *parts, heads, pair_dim, radial, hidden, backend)
            for _ in range(layers)
        )
        self.norm = IrrepsNorm()
        self.given = self.width[1] + 2 * Local.vectors + 3
        self.head = nn.Sequential(nn.Linear(2 * dim, dim), nn.SiLU())
        self.gate = zero_init(nn.Linear(dim, 4 * self.given))

    def forward(
        self, x: Float[Tensor, "b l 4 3"], log_snr: Float[Tensor, " b"], cond: Cond
    ) -> Float[Tensor, "b l 4 3"]:
        """The network's answer F for coordinates scaled to unit size."""
        mask = cond.structure["mask"]
        x = centre(x.to(torch.promote_types(x.dtype, torch.float32)), mask) * self.scale
        before, known = previous(cond, x)
        facts, vectors = self.local(x, log_snr, cond)
        late = torch.full_like(log_snr, 24.0)  # the last thought is free of noise
        facts_then, vectors_then = self.local_before(before, late, cond)
        there = known.view(-1, 1, 1).to(x.dtype)
        facts = torch.cat([facts, facts_then * there, there.expand(*mask.shape, 1)], -1)
        shift = (before[:, :, CA] - x[:, :, CA]) / self.scale * there
        vectors = torch.cat([vectors, vectors_then * there[..., None], shift[:, :, None]], 2)

        residue, level = self.told(log_snr, cond)
        pair, apart = self.pairs(x, before, known, cond)
        index, real = neighbours(apart, cond, self.along, self.near)
        place = relative_place(cond).gather(2, index)
        scalars = self.first(facts.to(residue.dtype)) + residue
        h = [scalars[:, :, None], self.vectors(vectors.mT.to(residue.dtype))]
        for degree, c in enumerate(self.width[2:], 2):
            h.append(scalars.new_zeros(*mask.shape, 2 * degree + 1, c))
        y = torch.where(known.view(-1, 1, 1), before[:, :, CA], x[:, :, CA])
        for layer in self.layers:
            h, y = layer(h, y, level, (index, real, place), pair, self.radial, mask)

        n = self.norm(h)
        told = torch.cat([n[0].squeeze(2), level[:, None].expand(-1, mask.shape[1], -1)], -1)
        gate = self.gate(self.head(told)).to(x.dtype).unflatten(-1, (4, self.given))
        own = n[1].mT.to(x.dtype)
        ca = x[:, :, CA]
        last = torch.stack([ca, y - ca], 2) / self.scale  # from the middle, and how far it moved
        return _combined(gate, torch.cat([own, vectors, last], 2)) * mask[..., None, None]


@full_precision
def _combined(gate: Float[Tensor, "b l a v"], vectors: Float[Tensor, "b l v 3"]) -> Tensor:
    return gate @ vectors
