"""What a network is told of residues and pairs beside their geometry: place, fold, noise, class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.domains.protein.features import CA, PLACES, Radial, distances, relative_place
from sciffusion.nn.embeddings import LabelEmbedding, LogSNREmbedding

CODES = 4
"""Loop, helix, strand, not said."""
SHARES = 5
"""Shares of helix and strand, whether each is said, and the length."""


def what_is_said(cond: Cond) -> tuple[Int[Tensor, "b l"], Float[Tensor, "b shares"]]:
    """(fold codes, shares and length); what is not said, or is dropped, as not known."""
    mask = cond.structure["mask"]
    b = len(mask)
    keep = torch.ones(b, dtype=torch.bool, device=mask.device) if cond.keep is None else cond.keep
    codes = cond.condition.get("secondary")
    codes = torch.full(mask.shape, CODES - 1, device=mask.device) if codes is None else codes
    codes = torch.where(keep[:, None], codes, CODES - 1)
    share = cond.condition.get("content")
    share = torch.full((b, 2), -1.0, device=mask.device) if share is None else share
    share = torch.where(keep[:, None], share.float(), -1.0)
    size = (mask.sum(1, keepdim=True) / 128.0).log()
    return codes, torch.cat([share.clamp_min(0), (share >= 0).float(), size.to(share)], 1)


class Ends(nn.Module):
    """How far a residue is from the first and from the last of its chain, in sines and cosines.

    Wavelengths run geometrically from 6 to 600 residues.

    Args:
        dim: width of the answer.
        features: sines and cosines of either distance, even.
    """

    def __init__(self, dim: int, features: int) -> None:
        super().__init__()
        if features % 2 or features < 2:
            raise ValueError(f"ends must be even (a sine and a cosine each) or 0, got {features}")
        self.register_buffer("freqs", torch.logspace(0, -2, features // 2), persistent=False)
        self.out = nn.Linear(2 * features, dim)

    def forward(self, cond: Cond) -> Float[Tensor, "b l d"]:
        """Of each residue."""
        residue, chain, mask = (cond.structure[k] for k in ("residue", "chain", "mask"))
        own = (chain[:, None] == chain[:, :, None]) & mask[:, None]
        step = (residue[:, :, None] - residue[:, None]) * own
        angle = torch.stack([step.amax(2), step.amin(2)], 2)[..., None] * self.freqs
        waves = torch.cat([angle.cos(), angle.sin()], -1).flatten(2)
        return self.out(waves.to(self.out.weight.dtype))


class Told(nn.Module):
    """The condition of a residue: (B, L, dim), and the noise level with the class: (B, dim).

    Args:
        dim: width.
        classes: of `cond.condition["label"]`; 0 for none.
        ends: features of `Ends`; 0 for none: then places are told relative to each other alone.
    """

    def __init__(self, dim: int, classes: int = 0, ends: int = 0) -> None:
        super().__init__()
        self.fold = nn.Embedding(CODES, dim)
        self.ends = Ends(dim, ends) if ends else None
        self.share = nn.Sequential(nn.Linear(SHARES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.noise = LogSNREmbedding(dim)
        self.label = LabelEmbedding(classes, dim) if classes else None

    def forward(
        self, log_snr: Float[Tensor, " b"], cond: Cond
    ) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b d"]]:
        """Both; what is not said, or is dropped (`cond.keep`), is told as not known."""
        codes, said = what_is_said(cond)
        residue = self.fold(codes)
        if self.ends is not None:
            residue = residue + self.ends(cond)
        level = F.silu(self.noise(log_snr) + self.share(said.to(residue.dtype)))
        if self.label is not None:
            level = level + self.label(cond, len(codes))
        return residue, level


def both_distances(
    radial: Radial, x: Float[Tensor, "b l 4 3"], before: Float[Tensor, "b l 4 3"], known: Tensor
) -> tuple[Float[Tensor, "b l l f"], Float[Tensor, "b l l"], Float[Tensor, "b l l"]]:
    """(Gaussians of both, distances of CA now, and in the last thought)."""
    now, then = distances(x[:, :, CA]), distances(before[:, :, CA])
    return torch.cat([radial(now), radial(then) * known.view(-1, 1, 1, 1)], -1), now, then


class Pairs(nn.Module):
    """What two residues are told of each other: place along the chain, distances now and before.

    Args:
        dim: width of a pair.
        radial: Gaussians of a distance.
    """

    def __init__(self, dim: int, radial: int = 16) -> None:
        super().__init__()
        self.place = nn.Embedding(PLACES, dim)
        self.radial = Radial(radial)
        self.seen = nn.Linear(2 * radial, dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "b l 4 3"],
        before: Float[Tensor, "b l 4 3"],
        known: Tensor,
        cond: Cond,
    ) -> tuple[Float[Tensor, "b l l d"], Float[Tensor, "b l l"]]:
        """(pairs, distances of CA: of the last thought where there is one, else of the noise)."""
        seen, now, then = both_distances(self.radial, x, before, known)
        pair = self.place(relative_place(cond)) + self.seen(seen.to(self.seen.weight.dtype))
        return self.out(F.silu(pair)), torch.where(known.view(-1, 1, 1), then, now)
