"""What is done to a thought of a backbone that must hold a motif: `Graft` and `Closed`.

The motif is laid on the thought by least squares (`core.projection.RigidGroups`). By itself that
tears the chain where the motif ends, by what thought and motif differ there; so the new residues
next to an end move along as if they were one rigid piece with it, the less the farther along the
chain they are, and the network makes good what is left. With low noise bonds at the motif's ends
are closed, after what came too near was moved apart (`domains.protein.apart`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.geometry import full_precision
from sciffusion.core.projection import GROUP, Projected, RigidGroups
from sciffusion.domains.protein.apart import LATE, LEAST, parted
from sciffusion.domains.protein.backbone import CA, C, N, O
from sciffusion.domains.protein.features import BONDED, joined_before
from sciffusion.domains.protein.validity import CIS, TRANS

NEAR_DATA = (0.0, LATE)
"""Noise, in Angstrom, at which bonds are closed."""
WIDTH = 2.0
"""Residues along the chain over which the motif's motion dies out."""
SEAM, STITCHES, OFF, FURTHER = 4, 60, 0.001, 1.5
"""New residues next to the motif that take up what its bonds are off; how often they move, at most;
Angstrom that are let be; how much farther than the mean of what its bonds ask an atom goes."""


def scaffolded(denoiser: Denoiser) -> Projected:
    """The denoiser of backbones that hold the motif that `cond.structure` says."""
    held = Projected(denoiser, Graft())
    if denoiser.gives == "jump":
        return closed(held)
    return Projected(parted(held), Closed(), NEAR_DATA)


def closed(denoiser: Denoiser) -> Projected:
    """The consistency network of backbones without clashes: few jumps leave bonds as blurred as
    their last thought, so that all are closed at the end.
    """
    return Projected(parted(denoiser), Closed(None, cis=False), NEAR_DATA)


class Graft:
    """The motif in its place, and the new residues next to it moved along.

    Of a new residue i and the nearest motif residue a on either side of it in its chain, i's atoms
    y move by sum w^2 (M_a y - y) / sum w with M_a the rigid motion that takes the thought of a to
    the motif's a, and w = exp(-((|i - a| - 1) / width)^2 / 2).

    Args:
        width: residues.
    """

    def __init__(self, width: float = WIDTH) -> None:
        self.width, self.rigid = width, RigidGroups()

    @full_precision
    def __call__(self, x0: Float[Tensor, "b l 4 3"], cond: Cond) -> Float[Tensor, "b l 4 3"]:
        placed, s = self.rigid(x0, cond), cond.structure
        known, chain = s[GROUP] > 0, s["chain"]
        b, length = known.shape
        turn = frames(placed) @ frames(x0).mT
        moved, weight = torch.zeros_like(x0), x0.new_zeros(b, length, 1, 1)
        for end in nearest(known):
            there = end.clamp(0, length - 1)
            apart = (torch.arange(length, device=x0.device) - end).abs() - 1
            same = (there == end) & (chain.gather(1, there) == chain)
            w = (-0.5 * (apart / self.width) ** 2).exp().to(x0.dtype) * same
            w = w[..., None, None]
            pick = there[..., None, None]
            before, after = (v[:, :, CA:CA + 1].gather(1, pick.expand(-1, -1, 1, 3))
                             for v in (x0, placed))  # fmt: skip
            r = turn.gather(1, pick.expand(-1, -1, 3, 3))
            moved = moved + w**2 * (after + (x0 - before) @ r.mT - x0)
            weight = weight + w
        new = (~known & s["mask"])[..., None, None]
        return torch.where(new, x0 + moved / weight.clamp_min(1e-6), placed)


class Closed:
    """Bonds at the ends of the motif, closed by the new residues next to it; or all of new ones.

    Distances that bonds, angles and the peptide plane all but fix (`features.BONDED`) draw their
    atoms together or apart until they are right (position-based dynamics, Mueller et al. 2007), and
    residues with one between them keep apart. The motif and new residues farther along the chain
    stay.

    Args:
        seam: new residues that move on either side of a motif's part; None for all, with a motif
            or without one.
        cis: whether a bond that is nearer to cis stays so; three of a thousand are.
    """

    def __init__(self, seam: int | None = SEAM, cis: bool = True) -> None:
        self.seam, self.cis = seam, cis
        over = [(i, 2 * 4 + j) for i in range(4) for j in range(4)]
        self.pairs = torch.tensor([*BONDED, *over]).T
        self.lengths = torch.tensor([*BONDED.values(), *len(over) * [LEAST[0]]])

    @full_precision
    def __call__(self, x0: Float[Tensor, "b l 4 3"], cond: Cond) -> Float[Tensor, "b l 4 3"]:
        (one, two), wanted, there = self._bonds(x0, cond)
        least = (self.pairs[1] >= 2 * 4).to(x0.device).repeat(x0.shape[1])
        moves, x = self._moves(cond)[:, :, None].repeat(1, 1, 4).flatten(1), x0.flatten(1, 2)
        first, second = moves[:, one], moves[:, two]
        there &= first | second
        share = torch.where(first & second, 0.5, 1.0)[..., None]
        for _ in range(STITCHES):
            way = x[:, two] - x[:, one]
            apart = way.norm(dim=-1).clamp_min(1e-3)
            off = apart - wanted
            counts = there & (~least | (off < 0))
            # Each sample for itself, so that it is the same in any batch
            busy = ((off.abs() > OFF) & counts).any(1)[:, None, None]
            if not bool(busy.any()):
                break
            counts = counts[..., None].to(x.dtype)
            pull = counts * share * (off / apart)[..., None] * way
            pull = torch.zeros_like(x).index_add(1, one, pull).index_add(1, two, -pull)
            asked = torch.zeros_like(x[..., :1]).index_add(1, one, counts).index_add(1, two, counts)
            x = x + FURTHER * busy * pull / asked.clamp_min(1) * moves[..., None]
        return x.view_as(x0)

    def _moves(self, cond: Cond) -> Bool[Tensor, "b l"]:
        """New residues that are near the motif along the chain."""
        chain, mask = cond.structure["chain"], cond.structure["mask"]
        known = cond.structure.get(GROUP, torch.zeros_like(chain)) > 0
        if self.seam is None:
            return mask & ~known
        place = torch.arange(known.shape[1], device=known.device)
        near = torch.zeros_like(known)
        for end in nearest(known):
            there = end.clamp(0, known.shape[1] - 1)
            same = (there == end) & (chain.gather(1, there) == chain)
            near |= same & ((place - end).abs() <= self.seam)
        return near & ~known & mask

    def _bonds(
        self, x0: Float[Tensor, "b l 4 3"], cond: Cond
    ) -> tuple[Int[Tensor, "2 k"], Float[Tensor, "b k"], Bool[Tensor, "b k"]]:
        """(the two atoms of each distance, its length or least, whether it is to be looked at)."""
        mask, after = cond.structure["mask"], joined_before(cond).roll(-1, 1)
        length, pairs = mask.shape[1], self.pairs.to(x0.device)
        atoms = pairs[:, None] + 4 * torch.arange(length, device=x0.device)[:, None]
        step = (x0.roll(-1, 1) - x0)[:, :, CA].norm(dim=-1, keepdim=True)
        cis = (step < (TRANS + CIS) / 2) & self.cis
        wanted = self.lengths.to(x0).expand(*mask.shape, -1)
        wanted = torch.where(cis & (self.lengths.to(x0) == TRANS), CIS, wanted)
        # Between O and the next CA lies more than one length: leave it to the others where cis
        there = torch.where(pairs[1] < 4, mask[..., None], after[..., None])
        there &= (pairs[1] < 8) | after.roll(-1, 1)[..., None]
        there = there & ~(cis & (pairs[0] == O) & (pairs[1] == 4 + CA))
        return atoms.flatten(1).clamp_max(4 * length - 1), wanted.flatten(1), there.flatten(1)


def frames(x: Float[Tensor, "b l 4 3"]) -> Float[Tensor, "b l 3 3"]:
    """A rotation for each residue, from its N, CA and C (Jumper et al. 2021, alg. 21)."""
    ahead = F.normalize(x[:, :, C] - x[:, :, CA], dim=-1)
    side = x[:, :, N] - x[:, :, CA]
    side = F.normalize(side - (side * ahead).sum(-1, keepdim=True) * ahead, dim=-1)
    return torch.stack([ahead, side, torch.linalg.cross(ahead, side)], -1)


def nearest(known: Bool[Tensor, "b l"]) -> tuple[Int[Tensor, "b l"], Int[Tensor, "b l"]]:
    """The last known residue at or before each, -1 where there is none, and the next, L if none."""
    length = known.shape[1]
    place = torch.arange(length, device=known.device).expand_as(known)
    last = torch.where(known, place, -1).cummax(1).values
    following = torch.where(known, place, length).flip(1).cummin(1).values.flip(1)
    return last, following
