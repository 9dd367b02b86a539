"""What both networks read off noisy backbones: invariants, near residues, unit vectors.

All of it turns with the backbone or stays as it is, so a network of it is SO(3)-equivariant by
construction. Coordinates come scaled to unit size and are taken to the size of the data, so that at
low noise a distance is one in Angstrom.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import PREVIOUS
from sciffusion.core.geometry import full_precision

CA = 1
LOCAL = 12
"""Atoms of a residue and of its two neighbours along the chain."""
PAIRS = list(itertools.combinations(range(LOCAL), 2))
BONDED = {  # within a residue, and from a residue's N CA C O to the next one's
    (0, 1): 1.459, (1, 2): 1.525, (2, 3): 1.229, (0, 2): 2.46, (1, 3): 2.40,
    (2, 4): 1.336, (1, 4): 2.43, (3, 4): 2.25, (2, 5): 2.43, (3, 5): 2.78, (1, 5): 3.80,
}  # fmt: skip
"""Distances that the covalent geometry all but fixes, in Angstrom."""
RIGID = [(i + 4 * k, j + 4 * k) for k in range(3) for i, j in BONDED if j + 4 * k < LOCAL]
"""The same for the 12 atoms: those before (0..3), those here (4..7), those after (8..11)."""
LENGTHS = [BONDED[i % 4, i % 4 + j - i] for i, j in RIGID]
SPAN = 32
"""Places along the chain are told up to this many residues."""


def relative_place(cond: Cond) -> Int[Tensor, "b l l"]:
    """How far j stands after i along the chain, clipped, from 0; 2 SPAN + 1 in another chain."""
    residue, chain = cond.structure["residue"], cond.structure["chain"]
    step = (residue[:, None] - residue[:, :, None]).clamp(-SPAN, SPAN) + SPAN
    return torch.where(chain[:, None] == chain[:, :, None], step, 2 * SPAN + 1)


PLACES = 2 * SPAN + 2


@full_precision
def distances(x: Float[Tensor, "b l 3"]) -> Float[Tensor, "b l l"]:
    """Between points; never quite 0."""
    square = (x * x).sum(-1)
    square = square[:, :, None] + square[:, None] - 2 * (x @ x.mT)
    return square.clamp_min(1e-4).sqrt()


class Radial(nn.Module):
    """Gaussians of a distance, finest where bonds and contacts are.

    Args:
        count: Gaussians between 1 and about 60 Angstrom.
    """

    middle: Tensor
    sharp: Tensor

    def __init__(self, count: int = 16) -> None:
        super().__init__()
        place = 3.0 + 3.2 * torch.sinh(torch.linspace(-0.6, 3.5, count + 1))
        self.register_buffer("middle", place[:-1], persistent=False)
        self.register_buffer("sharp", 0.8 / place.diff(), persistent=False)

    @full_precision
    def forward(self, apart: Float[Tensor, "*b"]) -> Float[Tensor, "*b r"]:
        """Of each distance."""
        return (-(((apart[..., None] - self.middle) * self.sharp) ** 2)).exp()


@full_precision
def neighbours(
    apart: Float[Tensor, "b l l"], cond: Cond, along: int, near: int
) -> tuple[Int[Tensor, "b l k"], Bool[Tensor, "b l k"]]:
    """(indices, which are real): up to `along` residues each way in the chain, and the nearest.

    Those along the chain are not named twice. Ties fall to the lower index.
    """
    mask = cond.structure["mask"]
    step = relative_place(cond) - SPAN
    own = (step.abs() <= along) & mask[:, None]
    order = torch.where(own, step.abs().to(apart.dtype) - 1e6, apart)
    order = order.masked_fill(~mask[:, None], math.inf)
    order = order.masked_fill(
        torch.eye(len(mask[0]), dtype=torch.bool, device=mask.device), math.inf
    )
    count = min(2 * along + near, len(mask[0]))
    value, index = order.topk(count, -1, largest=False)
    return index, value.isfinite() & mask[..., None]


def joined_before(cond: Cond) -> Bool[Tensor, "b l"]:
    """Whether the residue before is the neighbour along the chain."""
    residue, chain, mask = (cond.structure[k] for k in ("residue", "chain", "mask"))
    here = (residue.diff(dim=1) == 1) & (chain.diff(dim=1) == 0) & mask[:, 1:] & mask[:, :-1]
    return torch.cat([torch.zeros_like(here[:, :1]), here], 1)


class Local(nn.Module):
    """What the 12 atoms of a residue and its chain neighbours tell.

    Invariants: radial functions of all distances; how far each rigid distance is from its length,
    in units of the noise; sines and cosines of the torsions phi, psi, omega and of the CA trace,
    which change with handedness. Vectors: where the atoms lie as seen from CA, and the directions
    of the rigid distances, which need not be small where the noise is.

    Args:
        scale: of the data in Angstrom.
    """

    features = len(PAIRS) * 8 + 2 * len(RIGID) + 8
    vectors = LOCAL - 1 + len(RIGID)
    lengths: Tensor

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("lengths", torch.tensor(LENGTHS), persistent=False)
        self.register_buffer("pairs", torch.tensor(PAIRS).T, persistent=False)
        self.register_buffer("rigid", torch.tensor(RIGID).T, persistent=False)
        self.register_buffer("middle", torch.linspace(1.0, 9.0, 8), persistent=False)

    @full_precision
    def forward(
        self, x: Float[Tensor, "b l 4 3"], log_snr: Float[Tensor, " b"], cond: Cond
    ) -> tuple[Float[Tensor, "b l f"], Float[Tensor, "b l v 3"]]:
        """(invariants, vectors) of backbones of the data's size."""
        before = joined_before(cond)
        after = torch.cat([before[:, 1:], torch.zeros_like(before[:, :1])], 1)
        one = torch.ones_like(before)
        real = torch.stack([before, one, after], 2).repeat_interleave(4, 2)
        x12 = torch.cat([x.roll(1, 1), x, x.roll(-1, 1)], 2)
        x12 = (x12 - x[:, :, CA : CA + 1]) * real[..., None]

        def between(ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            v = x12[:, :, ends[1]] - x12[:, :, ends[0]]
            return v, (v.square().sum(-1) + 1e-6).sqrt(), real[:, :, ends[0]] & real[:, :, ends[1]]

        _, apart, both = between(self.pairs)
        near = (-(((apart[..., None] - self.middle) / 1.2) ** 2)).exp() * both[..., None]
        v, apart, both = between(self.rigid)
        noise = self.scale * (-0.5 * log_snr).clamp(-12, 12).exp()
        unit = (noise**2 + 0.05**2).sqrt()[:, None, None]
        off = (apart - self.lengths) / unit * both
        off = torch.cat([off.clamp(-4, 4), torch.tanh(off)], -1)
        turns = _turns(x12, real)
        way = v / (apart + 0.2)[..., None] * both[..., None]
        own = torch.cat([x12[:, :, :5], x12[:, :, 6:]], 2) / self.scale
        return torch.cat([near.flatten(2), off, turns], -1), torch.cat([own, way], 2)


def _turns(x: Float[Tensor, "b l 12 3"], real: Bool[Tensor, "b l 12"]) -> Float[Tensor, "b l 8"]:
    """Sine and cosine of phi, psi, omega before, and of the torsion N-CA-C-O."""
    quads = torch.tensor([[2, 4, 5, 6], [4, 5, 6, 8], [1, 2, 4, 5], [4, 5, 6, 7]], device=x.device)
    a, b, c, d = (x[:, :, q] for q in quads.T)
    known = real[:, :, quads].all(-1)
    axis = c - b
    axis = axis / (axis.norm(dim=-1, keepdim=True) + 1e-3)
    m, n = torch.linalg.cross(b - a, axis), torch.linalg.cross(axis, d - c)
    sine, cosine = (torch.linalg.cross(m, n) * axis).sum(-1), (m * n).sum(-1)
    size = (sine**2 + cosine**2 + 1e-4).sqrt()
    return torch.cat([sine / size * known, cosine / size * known], -1)


def previous(
    cond: Cond, like: Float[Tensor, "b l 4 3"]
) -> tuple[Float[Tensor, "b l 4 3"], Bool[Tensor, " b"]]:
    """(the last thought of x0 in Angstrom, zero where there is none, and where there is one)."""
    found = cond.structure.get(PREVIOUS)
    if found is None:
        return torch.zeros_like(like), torch.zeros(len(like), dtype=torch.bool, device=like.device)
    return found.to(like.dtype), found.abs().amax((1, 2, 3)) > 0
