"""What a file of backbones holds, whatever its format: models, B-factors, helices and strands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from sciffusion.domains.protein.backbone import CA, THREE_LETTER, Backbone
from sciffusion.domains.protein.secondary import HELIX, STRAND, psea
from sciffusion.errors import InputError

DESIGN = "GLY"
"""What a residue of no known kind is written as: programs that design sequences read glycine."""


@dataclass(frozen=True)
class Segment:
    """A helix or a strand: its code and its first and last residue, as rows of the backbone."""

    code: int
    first: int
    last: int


def checked(
    backbones: Backbone | Sequence[Backbone], b_factor: Float[np.ndarray, "*m l"] | None = None
) -> tuple[list[Backbone], Float[np.ndarray, "m l"]]:
    """Models of the same residues, and a B-factor for each residue of each.

    Raises:
        InputError: they do not fit each other, or a coordinate is not finite.
    """
    models = [backbones] if isinstance(backbones, Backbone) else list(backbones)
    if not models or not len(models[0]):
        raise InputError("no residues to write; give at least one backbone that has some")
    one = models[0]
    name = one.name or "a backbone"
    for k, model in enumerate(models, 1):
        same = model.sequence == one.sequence and all(
            np.array_equal(getattr(model, what), getattr(one, what))
            for what in ("chain", "number", "insertion")
        )
        if not same:
            raise InputError(
                f"{name}: model {k} has other residues than the first; write structures that "
                "differ to a file each"
            )
        if not np.isfinite(model.coords).all():
            row = int(np.argwhere(~np.isfinite(model.coords))[0, 0])
            raise InputError(
                f"{name}: residue {row + 1} of model {k} has coordinates that are not finite; "
                "leave it out"
            )
    if len(one.chains) < len(chain_rows(one)):
        raise InputError(f"{name}: a chain in two parts; bring its residues together")
    b = np.zeros(len(one)) if b_factor is None else np.asarray(b_factor, np.float64)
    if b.shape not in ((len(one),), (len(models), len(one))) or not np.isfinite(b).all():
        raise InputError(
            f"{name}: B-factors of shape {b.shape} for {len(one)} residues in {len(models)} "
            "models; give a finite number a residue"
        )
    return models, np.broadcast_to(b, (len(models), len(one)))


def segments(backbone: Backbone, secondary: Int[np.ndarray, " l"] | None = None) -> list[Segment]:
    """Its helices and strands, in order; none goes from one chain into the next.

    Args:
        secondary: of each residue, 0 loop, 1 helix, 2 strand; by P-SEA by default.

    Raises:
        InputError: another number of codes, or other codes.
    """
    codes = codes_of(backbone) if secondary is None else np.asarray(secondary)
    if codes.shape != (len(backbone),) or not np.isin(codes, (0, HELIX, STRAND)).all():
        raise InputError(
            f"{backbone.name or 'a backbone'}: secondary structure of shape {codes.shape} for "
            f"{len(backbone)} residues; give 0, 1 or 2 each"
        )
    fresh = (codes[1:] != codes[:-1]) | (backbone.chain[1:] != backbone.chain[:-1])
    edges = [0, *(np.flatnonzero(fresh) + 1).tolist(), len(codes)]
    return [Segment(int(codes[a]), a, b - 1) for a, b in pairwise(edges) if codes[a]]


def codes_of(backbone: Backbone) -> Int[np.ndarray, " l"]:
    """0 loop, 1 helix, 2 strand by P-SEA."""
    return psea(backbone.coords[:, CA], backbone.joined)


def chain_rows(backbone: Backbone) -> list[slice]:
    """The rows of each chain."""
    edges = np.flatnonzero(backbone.chain[1:] != backbone.chain[:-1]) + 1
    return [slice(a, b) for a, b in pairwise([0, *edges.tolist(), len(backbone)])]


def names_of(backbone: Backbone, unknown: str = DESIGN) -> list[str]:
    """Three letters a residue."""
    return [THREE_LETTER.get(letter, unknown) for letter in backbone.sequence]
