"""What is done to a thought of a backbone in which residues are too near: `Apart`.

A network leaves some residues of a fold within each other. While the noise is low enough for a
thought to be a structure, and high enough for the network to make good what a push bends, they are
moved apart; at the end only what would still clash is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.geometry import full_precision
from sciffusion.core.projection import GROUP, Projected
from sciffusion.domains.protein.backbone import CA

WIDTH = 2.0
"""Residues along the chain over which a push dies out."""
LATE, LAST = 2.0, 0.3
"""Angstrom of noise below which residues are moved apart; above, a thought is no structure. Below
the last the network cannot mend much any more, so only what would clash is moved."""
ROOM, LEAST = (2.6, 3.3), (2.45, 3.05)
"""What atoms and CA are kept from each other, Angstrom: at first with some room, which the network
takes back in part, at last hardly above what `validity` calls a clash."""
ROUNDS, ENOUGH = 10, 0.02
"""Times that residues are moved, at most, and Angstrom that are let be."""


def parted(denoiser: Denoiser) -> Projected:
    """The denoiser of backbones without clashes."""
    denoiser = Projected(denoiser, Apart(*ROOM), (LAST, LATE))
    return Projected(denoiser, Apart(*LEAST), (0.0, LAST))


class Apart:
    """Residues that come too near are moved apart along their shortest distance.

    A residue takes its neighbours along the chain with it, so no bond is stretched by much. Where
    there is a motif, residues of one group stay as they are to each other, new ones give way the
    less the nearer they are to it, and groups move as a whole, away from other groups.

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
        mask = s["mask"]
        group = s.get(GROUP, torch.zeros_like(s["chain"]))
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


def _together(
    push: Float[Tensor, "b l 3"], hit: Float[Tensor, "b l 1"], group: Int[Tensor, "b l"]
) -> Float[Tensor, "b l 3"]:
    """What each residue moves with its group: the mean of what its residues are pushed by."""
    one = F.one_hot(group).to(push.dtype)[..., 1:]
    mean = one.mT @ push / (one.mT @ hit).clamp_min(1)
    moved: Tensor = one @ mean
    return moved
