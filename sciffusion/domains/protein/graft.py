"""What is done to a thought of a backbone that must hold a motif: `Graft`, `Apart`, `Closed`.

The motif is laid on the thought by least squares (`core.projection.RigidGroups`). By itself that
tears the chain where the motif ends, by what thought and motif differ there; so the new residues
next to an end move along as if they were one rigid piece with it, the less the farther along the
chain they are, and the network makes good what is left. With low noise residues that are too near
are moved apart too: a motif that the network did not think of lies where it may; and bonds at its
ends are closed.
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
from sciffusion.domains.protein.backbone import CA, C, N, O
from sciffusion.domains.protein.features import BONDED, joined_before
from sciffusion.domains.protein.validity import CIS, TRANS

WIDTH = 2.0
"""Residues along the chain over which the motif's motion dies out."""
LATE, LAST = 2.0, 0.3
"""Angstrom of noise below which residues are moved apart; above, a thought is no structure. Below
the last the network cannot mend much any more, so only what would clash is moved."""
ROOM, LEAST = (2.6, 3.3), (2.45, 3.05)
"""What atoms and CA are kept from each other, Angstrom: at first with some room, which the network
takes back in part, at last hardly above what `validity` calls a clash."""
ROUNDS, ENOUGH = 10, 0.02
"""Times that residues are moved, at most, and Angstrom that are let be."""
SEAM, STITCHES, OFF, FURTHER = 4, 60, 0.005, 1.5
"""New residues next to the motif that take up what its bonds are off; how often they move, at most;
Angstrom that are let be; how much farther than the mean of what its bonds ask an atom goes."""


def scaffolded(denoiser: Denoiser) -> Projected:
    """The denoiser of backbones that hold the motif that `cond.structure` says."""
    denoiser = Projected(denoiser, Graft())
    denoiser = Projected(denoiser, Apart(*ROOM), (LAST, LATE))
    denoiser = Projected(denoiser, Apart(*LEAST), (0.0, LAST))
    return Projected(denoiser, Closed(), (0.0, LATE))


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


class Apart:
    """Residues that come too near are moved apart along their shortest distance.

    Residues of one group stay as they are to each other. A new residue takes its neighbours along
    the chain with it, and gives way the less the nearer it is to the motif, which does not follow:
    so no bond is stretched by much. A group moves as a whole, away from other groups.

    Args:
        atoms: the least distance of backbone atoms of residues two or more apart, Angstrom.
        cas: that of CA of residues three or more apart.
        width: residues along the chain over which a push dies out.
    """

    def __init__(self, atoms: float, cas: float, width: float = WIDTH) -> None:
        self.atoms, self.cas, self.width = atoms, cas, width

    @full_precision
    def __call__(self, x0: Float[Tensor, "b l 4 3"], cond: Cond) -> Float[Tensor, "b l 4 3"]:
        s = cond.structure
        mask, group = s["mask"], s[GROUP]
        place = torch.arange(mask.shape[1], device=x0.device)
        along = (place[:, None] - place).abs()
        both = mask[:, :, None] & mask[:, None]
        other = s["chain"][:, :, None] != s["chain"][:, None]
        stiff = (group[:, :, None] == group[:, None]) & (group[:, :, None] > 0)
        pairs = [both & ~stiff & (other | (along >= k)) for k in (2, 3)]
        spread = (-0.5 * (along / self.width) ** 2).exp().to(x0.dtype) * (both & ~other)
        # 1/3, 2/3, 1, ... from the nearest motif residue of the chain on
        held = (group > 0)[:, None] & ~other
        ends = along.expand_as(held).masked_fill(~held, mask.shape[1]).amin(2)
        loose = (ends / (self.width + 1)).clamp(max=1).to(x0.dtype)[..., None]
        # Of two new residues, or two groups, each goes half the way; a motif does not give way.
        new = (group == 0) & mask
        share = torch.where(new[:, :, None] == new[:, None], 0.5, new[:, :, None].to(x0.dtype))
        for _ in range(ROUNDS):
            push, worst = self._pushes(x0, *pairs)
            if not bool((busy := worst > ENOUGH).any()):
                break
            push = (push * share[..., None]).sum(2)
            hit = (push.abs().amax(-1, keepdim=True) > 0).to(x0.dtype)
            # Neighbours that are pushed together go as far as each, not as all of them.
            step = spread @ (push * new[..., None]) / (spread @ hit).clamp_min(1)
            step = torch.where(new[..., None], step * loose, _together(push, hit, group))
            x0 = x0 + step[:, :, None] * busy[:, None, None, None]
        return x0

    def _pushes(
        self, x: Float[Tensor, "b l 4 3"], atoms: Bool[Tensor, "b l l"], cas: Bool[Tensor, "b l l"]
    ) -> tuple[Float[Tensor, "b l l 3"], Float[Tensor, " b"]]:
        """(what each residue should move away from each other one, the most of each sample)."""
        b, length = x.shape[:2]
        points = x.flatten(1, 2)
        apart = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        apart = apart.view(b, length, 4, length, 4).transpose(2, 3)
        over = (self.atoms - apart).clamp_min(0) * atoms[..., None, None]
        far = (self.cas - apart[..., CA, CA]).clamp_min(0) * cas
        over[..., CA, CA] = torch.maximum(over[..., CA, CA], far)
        most, which = over.flatten(3).max(-1)
        rows = torch.arange(b, device=x.device)[:, None, None]
        place = torch.arange(length, device=x.device)
        one = x[rows, place[:, None], which // 4]
        two = x[rows, place[None, :], which % 4]
        return most[..., None] * F.normalize(one - two, dim=-1), most.amax((1, 2))


class Closed:
    """Bonds at the ends of the motif, closed by the new residues next to it.

    Distances that bonds, angles and the peptide plane all but fix (`features.BONDED`) draw their
    atoms together or apart until they are right (position-based dynamics, Mueller et al. 2007).
    The motif and new residues farther along the chain stay; a bond that is nearer to cis stays so.

    Args:
        seam: new residues that move on either side of a motif's part.
    """

    def __init__(self, seam: int = SEAM) -> None:
        self.seam = seam
        self.pairs, self.lengths = torch.tensor(list(BONDED)).T, torch.tensor([*BONDED.values()])

    @full_precision
    def __call__(self, x0: Float[Tensor, "b l 4 3"], cond: Cond) -> Float[Tensor, "b l 4 3"]:
        (one, two), wanted, there = self._bonds(x0, cond)
        moves, x = self._moves(cond)[:, :, None].repeat(1, 1, 4).flatten(1), x0.flatten(1, 2)
        first, second = moves[:, one], moves[:, two]
        there &= first | second
        share = torch.where(first & second, 0.5, there.to(x.dtype))[..., None] * there[..., None]
        asked = torch.zeros_like(x[..., :1])
        asked = asked.index_add(1, one, there[..., None].to(x.dtype))
        asked = asked.index_add(1, two, there[..., None].to(x.dtype)).clamp_min(1)
        for _ in range(STITCHES):
            way = x[:, two] - x[:, one]
            apart = way.norm(dim=-1).clamp_min(1e-3)
            off = apart - wanted
            if not bool((off.abs() * there > OFF).any()):
                break
            pull = (off / apart)[..., None] * way * share
            pull = torch.zeros_like(x).index_add(1, one, pull).index_add(1, two, -pull)
            x = x + FURTHER * pull / asked * moves[..., None]
        return x.view_as(x0)

    def _moves(self, cond: Cond) -> Bool[Tensor, "b l"]:
        """New residues that are near the motif along the chain."""
        chain, known = cond.structure["chain"], cond.structure[GROUP] > 0
        place = torch.arange(known.shape[1], device=known.device)
        near = torch.zeros_like(known)
        for end in nearest(known):
            there = end.clamp(0, known.shape[1] - 1)
            same = (there == end) & (chain.gather(1, there) == chain)
            near |= same & ((place - end).abs() <= self.seam)
        found: Tensor = near & ~known & cond.structure["mask"]
        return found

    def _bonds(
        self, x0: Float[Tensor, "b l 4 3"], cond: Cond
    ) -> tuple[Int[Tensor, "2 k"], Float[Tensor, "b k"], Bool[Tensor, "b k"]]:
        """(the two atoms of each distance, its length, whether it is to be looked at)."""
        mask, after = cond.structure["mask"], joined_before(cond).roll(-1, 1)
        length, pairs = mask.shape[1], self.pairs.to(x0.device)
        atoms = pairs[:, None] + 4 * torch.arange(length, device=x0.device)[:, None]
        step = (x0.roll(-1, 1) - x0)[:, :, CA].norm(dim=-1, keepdim=True)
        cis = step < (TRANS + CIS) / 2
        wanted = self.lengths.to(x0).expand(*mask.shape, -1)
        wanted = torch.where(cis & (self.lengths.to(x0) == TRANS), CIS, wanted)
        # Between O and the next CA lies more than one length: leave it to the others where cis
        there = torch.where(pairs[1] < 4, mask[..., None], after[..., None])
        there = there & ~(cis & (pairs[0] == O) & (pairs[1] == 4 + CA))
        return atoms.flatten(1).clamp_max(4 * length - 1), wanted.flatten(1), there.flatten(1)


def _together(
    push: Float[Tensor, "b l 3"], hit: Float[Tensor, "b l 1"], group: Int[Tensor, "b l"]
) -> Float[Tensor, "b l 3"]:
    """What each residue moves with its group: the mean of what its residues are pushed by."""
    one = F.one_hot(group).to(push.dtype)[..., 1:]
    mean = one.mT @ push / (one.mT @ hit).clamp_min(1)
    moved: Tensor = one @ mean
    return moved


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
