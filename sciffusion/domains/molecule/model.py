"""The SO(3)-equivariant denoiser: attention over atoms that carry scalars and points.

Each atom has scalars s and C points y, which begin at its noisy position and move with it under
rotations and translations. A layer looks at all pairs: distances between points and what is known
of the two atoms (bond, path, stereo side) give attention biases and the weights with which points
pull at each other. Handedness enters only through the asked-for sign of each stereo centre times
its present volume, so the mirror image with mirrored signs gets the mirrored answer, and the mirror
image with the same signs another one. After EGNN (Satorras et al. 2021) and AlphaFold 2's invariant
point attention (Jumper et al. 2021).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.core.geometry import full_precision
from sciffusion.domains.molecule.conditioner import Conditioner, each, mapped
from sciffusion.nn.blocks import zero_init
from sciffusion.nn.embeddings import LogSNREmbedding

RADIAL = 16
"""Gaussians that a distance is written in, finest where bonds and angles are."""
LEASH = 4.0
"""How far a point may be from its atom, in units of the coordinates' spread."""
CALM = 0.2
"""Units of what moves points. Moves are small; an optimizer steps all weights alike, so weights
that say moves are kept of the size of the others. Without it, trainings blew up."""


class PointLayer(nn.Module):
    """One round: pairs look, atoms attend, points move, stereo centres turn, atoms think."""

    def __init__(self, dim: int, pair_dim: int, heads: int) -> None:
        super().__init__()
        self.heads, c = heads, heads
        self.modulate = zero_init(nn.Linear(dim, 6 * dim))
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False)
        self.ends = nn.Linear(dim, 2 * pair_dim)
        self.look = nn.Linear(RADIAL + c, pair_dim)
        self.sharpness = nn.Parameter(torch.ones(heads, 1, 1))
        self.think = nn.Linear(pair_dim, pair_dim)
        self.bias = nn.Linear(pair_dim, heads)
        self.pull = zero_init(nn.Linear(pair_dim, c))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim + c, dim)
        self.follow = zero_init(nn.Linear(dim, c))
        self.mix = nn.Parameter(torch.zeros(c, c))
        self.turn = nn.Sequential(nn.Linear(2 + dim, dim), nn.SiLU(), nn.Linear(dim, dim + c))
        zero_init(self.turn[-1])
        self.mlp = nn.Sequential(nn.Linear(dim + c, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))

    def forward(
        self,
        x: Float[Tensor, "b n 3"],
        s: Float[Tensor, "b n d"],
        y: Float[Tensor, "b n c 3"],
        pair: Float[Tensor, "b p n n"],
        noise: Float[Tensor, "b d"],
        radial: Float[Tensor, "two r"],
        cond: Cond,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(s, y, pair) after this round."""
        a1, b1, g1, a2, b2, g2 = self.modulate(noise)[:, None].chunk(6, -1)
        known = cond.structure["mask"]
        h = self.norm1(s) * (1 + a1) + b1

        square = _distances(y)
        apart = square.sqrt()
        near = _radial(square, apart, radial).to(pair.dtype)
        seen = torch.cat([near, torch.log1p(square).to(pair.dtype)], 1)
        own, other = self.ends(h).mT.chunk(2, 1)
        z = F.silu(each(self.look, seen) + pair + own[..., None] + other[:, :, None])
        pair = pair + each(self.think, z)

        bias = each(self.bias, pair).masked_fill(~known[:, None, None], -torch.inf)
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # Of fixed length: long trainings blew the logits up.
        q, k = (F.rms_norm(p, p.shape[-1:]) for p in (q, k))
        q = q * (self.sharpness * q.shape[-1] ** -0.5).to(q.dtype)
        share = (q @ k.mT + bias).float().softmax(-1)
        attended = (share.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        dragged = _towards(share, y)
        both = (known[:, :, None] & known[:, None])[:, None] * (0.1 * CALM)
        weight = each(self.pull, pair).float() * (both / (1 + apart))
        y = y + _towards(weight, y)
        y = y + CALM * self.follow(h).float()[..., None] * dragged
        y = y + CALM * _mixed(self.mix, y)
        s = s + g1 * self.out(torch.cat([attended, _lengths(dragged).to(h.dtype)], -1))

        if cond.structure["tetra"].shape[1]:
            ds, dy = self._turn(s, y, cond)
            s, y = s + ds, y + dy
        y = _leashed(y, x)

        h = self.norm2(s) * (1 + a2) + b2
        s = s + g2 * self.mlp(torch.cat([h, _lengths(y - y[:, :, :1]).to(h.dtype)], -1))
        return s, y, pair

    def _turn(self, s: Tensor, y: Tensor, cond: Cond) -> tuple[Tensor, Tensor]:
        """Push the four points of each stereo centre towards, or away from, the asked-for hand."""
        index, sign = cond.structure["tetra"], cond.structure["tetra_sign"].float()
        flat = index.flatten(1)[..., None]
        place = y[:, :, 0].gather(1, flat.expand(-1, -1, 3)).unflatten(1, index.shape[1:])
        # Unit vectors from the centre: nothing grows without bound where atoms meet, and their
        # volume changes its sign alone with the order of the neighbours.
        out = place[:, :, 1:] - place[:, :, :1]
        out = out / (out.norm(dim=-1, keepdim=True) + 0.05)
        u, v, w = (out[:, :, k] - out[:, :, 3] for k in range(3))
        # The gradient of the volume by each point; cross products flip with the mirror, as signs do
        ga, gb, gc = (torch.linalg.cross(p, q) for p, q in ((v, w), (w, u), (u, v)))
        volume = sign[..., None] * (u * ga).sum(-1, keepdim=True)
        told = torch.cat([volume, (sign != 0).float()[..., None]], -1).to(s.dtype)
        centre = index[..., :1].expand(-1, -1, s.shape[-1])
        answer = self.turn(torch.cat([told, s.gather(1, centre)], -1))
        answer = answer * (sign != 0).to(s.dtype)[..., None]
        ds, strength = answer[..., : s.shape[-1]], CALM * answer[..., s.shape[-1] :].float()
        push = torch.stack([ga, gb, gc, -(ga + gb + gc)], 2) * sign[..., None, None]
        moves = push[..., None, :] * strength[:, :, None, :, None]
        ds = ds[:, :, None].expand(-1, -1, 5, -1).flatten(1, 2)
        moves = F.pad(moves, (0, 0, 0, 0, 1, 0)).flatten(1, 2).flatten(2)  # the centre stays
        out_s = torch.zeros_like(s).scatter_add(1, flat.expand_as(ds), ds.to(s.dtype))
        out_y = torch.zeros_like(y).flatten(2).scatter_add(1, flat.expand_as(moves), moves)
        return out_s, out_y.view_as(y)


@full_precision
def _towards(weight: Float[Tensor, "b c n n"], y: Float[Tensor, "b n c 3"]) -> Tensor:
    """sum_j w_ij (y_j - y_i), (B, N, C, 3)."""
    x = y.transpose(1, 2)
    return (weight @ x - weight.sum(-1, keepdim=True) * x).transpose(1, 2)


@full_precision
def _mixed(weight: Float[Tensor, "c d"], y: Float[Tensor, "b n d 3"]) -> Float[Tensor, "b n c 3"]:
    """Linear combinations of an atom's points, relative to the first."""
    return F.linear((y - y[:, :, :1]).mT, weight.float()).mT


@full_precision
def _distances(y: Float[Tensor, "b n c 3"]) -> Float[Tensor, "b c n n"]:
    """Squared distances between the points of two atoms, channel by channel; never quite 0."""
    x = y.transpose(1, 2)
    length, one = (x * x).sum(-1, keepdim=True), torch.ones_like(x[..., :1])
    # One product instead of a sum of three: pairs are what time goes to
    square = torch.cat([-2 * x, length, one], -1) @ torch.cat([x, one, length], -1).mT
    return square.clamp_min(1e-6)


@full_precision
def _radial(
    square: Float[Tensor, "b c n n"],
    apart: Float[Tensor, "b c n n"],
    radial: Float[Tensor, "two r"],
) -> Float[Tensor, "b r n n"]:
    """Gaussians of the distance between atoms: their exponents are linear in (d^2, d)."""
    middle, width = radial[0], radial[1] ** 2
    powers = torch.stack([square[:, 0], apart[:, 0]], 1)
    slopes = torch.stack([-width, 2 * width * middle], -1)
    return (mapped(slopes, powers) - (width * middle**2)[:, None, None]).exp()


def _leashed(y: Float[Tensor, "b n c 3"], x: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n c 3"]:
    """Points drawn back towards their atom: hardly where near, never beyond `LEASH`."""
    away = y - x[:, :, None]
    square = (away * away).sum(-1, keepdim=True)
    return x[:, :, None] + away * torch.rsqrt(1 + square / LEASH**2)


def _lengths(v: Float[Tensor, "b n c 3"]) -> Float[Tensor, "b n c"]:
    """Logarithmic squared lengths."""
    return torch.log1p((v * v).sum(-1))


class PointTransformer(nn.Module):
    """Coordinates in, an equivariant vector for each atom out.

    Args:
        dim: width of an atom; a multiple of `heads`.
        pair_dim: width of a pair.
        layers: rounds.
        heads: attention heads, and points an atom carries.
        bond_layers: rounds of messages along bonds beforehand.
    """

    def __init__(
        self, dim: int = 128, pair_dim: int = 32, layers: int = 6, heads: int = 8,
        bond_layers: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        if dim % heads:
            raise ValueError(f"model.heads={heads} must divide model.dim={dim}")
        self.heads = heads
        self.known = Conditioner(dim, pair_dim, bond_layers)
        self.noise = nn.Sequential(LogSNREmbedding(dim), nn.SiLU())
        self.layers = nn.ModuleList(PointLayer(dim, pair_dim, heads) for _ in range(layers))
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.SiLU())
        # Not zero: points begin at their atom, so the answer begins at zero all the same.
        self.gate = nn.Linear(dim, heads)
        # None narrower than 0.1: a finer one turns a small move into a large gradient.
        middle = 0.8 + 0.33 * torch.sinh(torch.linspace(-1.6, 3.0, RADIAL + 1))
        self.register_buffer(
            "radial", torch.stack([middle[:-1], 0.7 / middle.diff()]), persistent=False
        )

    def prepare(self, cond: Cond) -> Cond:
        """`cond` with what does not depend on the coordinates."""
        return self.known.prepare(cond)

    def forward(
        self, x: Float[Tensor, "b n 3"], log_snr: Float[Tensor, " b"], cond: Cond
    ) -> Float[Tensor, "b n 3"]:
        """The network's answer F for coordinates scaled to unit size."""
        known = cond.structure["mask"][..., None]
        noise = self.noise(log_snr)
        s, pair = self.known(cond)
        y = x.float()[:, :, None].expand(-1, -1, self.heads, -1)
        for layer in self.layers:
            s, y, pair = layer(x, s, y, pair, noise, self.radial, cond)
        gate = self.gate(self.head(s + noise[:, None])).float()
        moved = (gate[..., None] * (y - x[:, :, None])).sum(2)
        # A displacement of the data is worth F = displacement / sigma: small at low noise.
        rest = torch.sigmoid(-log_snr.float()).sqrt().clamp_min(0.05)
        moved = moved / rest[:, None, None] * known
        return (moved - moved.sum(1, keepdim=True) / known.sum(1, keepdim=True)) * known
