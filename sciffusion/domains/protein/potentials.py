"""Potentials of backbones (B, L, 4, 3) in Angstrom: contacts, hotspots, radius of gyration.

All look at CA atoms and are energies in kT (`core.potentials`): 1 at a width beyond what is wanted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.potentials import Led, Potential, RadiusOfGyration
from sciffusion.domains.protein.backbone import CA
from sciffusion.errors import InputError

WIDTH = 1.0
"""Angstrom."""
APART = 12
"""Places between residues of one chain whose nearness says something of the fold."""
NAMES = ("radius", "contacts", "hotspots")


class Contacts(Potential):
    """sum max(d_ij - distance, 0)^2 / (2 WIDTH^2) over pairs of residues (P, 2)."""

    def __init__(
        self, pairs: Int[Tensor, "p 2"], distance: float = 8.0, strength: float = 1.0
    ) -> None:
        super().__init__(strength)
        self.pairs, self.distance = pairs, distance

    def energy(self, x0: Float[Tensor, "b l 4 3"], cond: Cond) -> Float[Tensor, " b"]:
        i, j = self.pairs.to(x0.device).unbind(1)
        apart = (x0[:, i, CA] - x0[:, j, CA]).square().sum(-1).clamp_min(1e-12).sqrt()
        return 0.5 * ((apart - self.distance).clamp_min(0) / WIDTH).square().sum(-1)


class Hotspots(Potential):
    """Residues that must each be near some residue of another chain (of the same one, `APART`).

    The nearest distance is softened, -log sum exp(-d) in Angstrom, so that any may come.
    """

    def __init__(
        self, residues: Int[Tensor, " h"], distance: float = 8.0, strength: float = 1.0
    ) -> None:
        super().__init__(strength)
        self.residues, self.distance = residues, distance

    def energy(self, x0: Float[Tensor, "b l 4 3"], cond: Cond) -> Float[Tensor, " b"]:
        spots, x = self.residues.to(x0.device), x0[:, :, CA]
        apart = (x[:, spots, None] - x[:, None]).square().sum(-1).clamp_min(1e-12).sqrt()
        place = torch.arange(x.shape[1], device=x.device)
        far = ((place - spots[:, None]).abs() >= APART).expand(len(x), -1, -1)
        chain = cond.structure.get("chain")
        if chain is not None:
            other = chain[:, None] != chain[:, spots, None]
            far = torch.where(other.any(2, keepdim=True), other, far)
        if cond.mask is not None:
            far = far & cond.mask[:, None]
        nearest = -torch.logsumexp(torch.where(far, -apart, -1e4), -1)
        return 0.5 * ((nearest - self.distance).clamp_min(0) / WIDTH).square().sum(-1)


def asked(guide: Mapping[str, Any] | None) -> bool:
    """Whether any potential is asked for."""
    return guide is not None and any(guide[name] is not None for name in NAMES)


def led(
    denoiser: Denoiser, guide: Mapping[str, Any] | None, chains: Sequence[Sequence[int]]
) -> Denoiser:
    """The denoiser led by the potentials of a configuration.

    Args:
        guide: settings; see configs/request/protein.yaml.
        chains: residues of the chains of each sample.

    Raises:
        InputError: settings that make no sense, or residues that a sample has not.
    """
    if guide is None or not asked(guide):
        return denoiser
    for name in ("distance", "below", "limit"):
        if not guide[name] > 0:
            raise InputError(f"guide.{name}={guide[name]} must be more than 0")
    for name in ("radius_strength", "contact_strength", "hotspot_strength"):
        if not (math.isfinite(guide[name]) and guide[name] >= 0):
            raise InputError(f"guide.{name}={guide[name]} must be a number of 0 or more")
    found: list[Potential] = []
    shortest, away = min(map(sum, chains)), guide["distance"]
    if (radius := guide["radius"]) is not None:
        if isinstance(radius, bool) or not isinstance(radius, int | float) or not radius > 0:
            raise InputError(f"guide.radius={radius} must be Angstrom, more than 0")
        found.append(RadiusOfGyration(float(radius), WIDTH, CA, strength=guide["radius_strength"]))
    if (text := guide["contacts"]) is not None:
        pairs = [_residues(p, "-", shortest, f"guide.contacts={text}") for p in text.split(",")]
        if wrong := [p for p in pairs if len(p) != 2 or p[0] == p[1]]:
            shown = "-".join(str(k + 1) for k in wrong[0])
            raise InputError(f"guide.contacts: {shown} is no pair of residues, such as 5-40")
        found.append(Contacts(torch.tensor(pairs), away, guide["contact_strength"]))
    if (text := guide["hotspots"]) is not None:
        spots = _residues(text, ",", shortest, f"guide.hotspots={text}")
        if shortest <= APART and max(map(len, chains)) == 1:
            raise InputError(f"guide.hotspots={text}: a chain of {shortest} residues is too short")
        found.append(Hotspots(torch.tensor(spots), away, guide["hotspot_strength"]))
    return Led(denoiser, found, interval=(0.0, guide["below"]), limit=guide["limit"])


def _residues(text: str, between: str, count: int, where: str) -> list[int]:
    """Residues as indices."""
    parts = [p.strip() for p in text.split(between)]
    if not all(re.fullmatch(r"[0-9]{1,6}", p) for p in parts):
        raise InputError(
            f"{where} cannot be read: residues are whole numbers, such as 5{between}40"
        )
    if wrong := [p for p in parts if not 1 <= int(p) <= count]:
        raise InputError(f"{where}: there is no residue {wrong[0]}; samples have 1 to {count}")
    return [int(p) - 1 for p in parts]
