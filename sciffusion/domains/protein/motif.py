"""Motif scaffolding: residues of a known structure kept in place, new ones drawn around them.

A `Motif` is a contig held against a structure; a `Placement` is one of its designs before it is
drawn: how long each stretch is, and which residue of the motif stands where. Files of the standard
problems carry their contig in REMARK 999 (Lin et al. 2024, Genie 2), with groups of parts that are
free relative to each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.projection import with_known
from sciffusion.core.rng import Rng
from sciffusion.domains.protein.backbone import CA, UNKNOWN, Backbone
from sciffusion.domains.protein.contigs import (
    Contig,
    Fixed,
    Range,
    parse_contig,
    parse_total,
)
from sciffusion.domains.protein.data import UNKNOWN_SS
from sciffusion.domains.protein.secondary import LOOP, psea
from sciffusion.errors import InputError

FREE = -1
"""Stands for no residue of the motif."""
SEEN = 3
"""P-SEA looks so many residues on: loop nearer to a cut may have been helix or strand."""
SHOWN = 5
"""Residues and chains that a message names."""
_INPUT = re.compile(r"REMARK 999 INPUT\s+(?:([A-Za-z])\s+)?(-?\d+)\s+(-?\d+)(?:\s+([A-Za-z0-9]+))?")
_TOTAL = re.compile(r"REMARK 999 (MINIMUM|MAXIMUM) TOTAL LENGTH\s+(\d+)")


@dataclass(frozen=True)
class Placement:
    """Where the residues of a motif stand in one design.

    Attributes:
        chains: residues of each chain.
        contig: with its lengths as they were drawn.
        rows: (L,) for each residue its row in the motif's structure, or FREE.
        group: (L,) the number of its group from 1, 0 where it is new.
    """

    chains: tuple[int, ...]
    contig: Contig
    rows: Int[np.ndarray, " l"]
    group: Int[np.ndarray, " l"]


class Motif:
    """A contig held against a structure.

    Args:
        backbone: the structure, all its chains.
        contig: what is kept of it, and what comes between.
        total: residues of a design, the fewest and the most; by default what the contig makes.
        name: of the structure, for messages.
        refused: by chain, why it cannot be used.

    Raises:
        InputError: a chain or residues that are not there, or a total that does not fit.
    """

    def __init__(
        self,
        backbone: Backbone,
        contig: Contig,
        total: Range | None = None,
        name: str = "the structure",
        refused: Mapping[str | None, str] | None = None,
    ) -> None:
        self.backbone, self.contig = backbone, contig
        self.total = contig.fit(total)
        self._rows = [_rows(backbone, part, contig, name, refused or {}) for part in contig.fixed]

    @classmethod
    def of(
        cls,
        motif: str | Path | Backbone,
        contigs: str | None = None,
        total: str | int | None = None,
    ) -> Motif:
        """From a file, by default with the contig and the total of its REMARK 999.

        Raises:
            InputError: the file, the contig or the total cannot be used.
        """
        asked = None if total is None else parse_total(total)
        if isinstance(motif, Backbone):
            if contigs is None:
                raise InputError("give contigs= too, such as 10-40/A163-181/10-40")
            return cls(motif, parse_contig(contigs), asked, motif.name or "the motif")
        from sciffusion.domains.protein.readers import read_structure
        from sciffusion.domains.protein.records import together

        try:
            structure = read_structure(motif)
        except InputError as error:
            raise InputError(f"motif={motif}: {error}") from error
        if contigs is None:
            contig, known = from_remarks(structure.remarks, str(motif))
            asked = asked or known
        else:
            contig = parse_contig(contigs)
        whole = together(structure.chains)
        return cls(whole, contig, asked, Path(motif).name, structure.refused)

    @property
    def kept(self) -> Float[np.ndarray, "k 4 3"]:
        """Coordinates of the motif's residues, in the contig's order."""
        found: Float[np.ndarray, "k 4 3"] = self.backbone.coords[np.concatenate(self._rows)]
        return found

    @cached_property
    def codes(self) -> Int[np.ndarray, " l"]:
        """The fold of each residue of the structure, UNKNOWN_SS where it cannot be told."""
        kept = np.zeros(len(self.backbone), bool)
        kept[np.concatenate(self._rows)] = True
        found = np.full(len(kept), UNKNOWN_SS)
        joined = self.backbone.joined
        # Each stretch is read by itself: what stands around it in the file need not come along.
        edges = np.flatnonzero(np.r_[True, ~joined | ~kept[1:] | ~kept[:-1], True])
        for a, b in pairwise(edges.tolist()):
            if not kept[a]:
                continue
            codes = psea(self.backbone.coords[a:b, CA])
            place = np.arange(b - a)
            unsure = (codes == LOOP) & ((place < SEEN) | (place >= b - a - SEEN))
            found[a:b] = np.where(unsure, UNKNOWN_SS, codes)
        return found

    def placements(self, seed: int, numbers: Sequence[int]) -> list[Placement]:
        """Those of these designs; one follows from (seed, number)."""
        if not len(numbers):
            return []
        u = Rng(seed, torch.tensor(list(numbers))).uniform("length", (len(self.contig.parts),))
        return [self._placed(self.contig.drawn(row, self.total)) for row in u.tolist()]

    def _placed(self, contig: Contig) -> Placement:
        names, mine = contig.groups, iter(self._rows)
        chains: list[int] = []
        rows: list[int] = []
        group: list[int] = []
        for chain in contig.chains:
            before = len(rows)
            for part in chain:
                if isinstance(part, Fixed):
                    found = next(mine).tolist()
                    rows += found
                    group += [names.index(part.group) + 1] * len(found)
                else:
                    rows += [FREE] * part.low
                    group += [0] * part.low
            chains.append(len(rows) - before)
        return Placement(tuple(chains), contig, np.array(rows), np.array(group))

    def blank(self, placement: Placement) -> Backbone:
        """A design before it is drawn: the motif's kinds of residue, coordinates of zero."""
        letters = (self.backbone.sequence[k] if k >= 0 else UNKNOWN for k in placement.rows)
        zero = np.zeros((len(placement.rows), 4, 3))
        return Backbone.of(zero, "".join(letters), placement.chains, "design")

    def told(self, placement: Placement) -> Int[Tensor, " l"]:
        """The fold of a design's residues, as far as it is known."""
        codes = np.where(placement.rows >= 0, self.codes[placement.rows], UNKNOWN_SS)
        return torch.from_numpy(codes)

    def points(self, placement: Placement) -> Float[np.ndarray, "l 4 3"]:
        """Where the motif's residues lie in the structure; zero where a residue is new."""
        x = np.zeros((len(placement.rows), 4, 3))
        kept = placement.rows >= 0
        x[kept] = self.backbone.coords[placement.rows[kept]]
        return x

    def known(self, cond: Cond, placements: Sequence[Placement]) -> Cond:
        """`cond` of these designs with what the denoiser's projection must know."""
        padded = cond.structure["mask"].shape[1]
        x = torch.zeros(len(placements), padded, 4, 3, dtype=torch.float64)
        group = torch.zeros(len(placements), padded, dtype=torch.int64)
        for row, placement in enumerate(placements):
            size = len(placement.rows)
            x[row, :size] = torch.from_numpy(self.points(placement))
            group[row, :size] = torch.from_numpy(placement.group)
        # Near the origin, so that float32 keeps 1e-6 A wherever the file's structure lies.
        some = (group > 0)[..., None, None]
        middle = (x * some).sum((1, 2), keepdim=True) / (4 * some.sum((1, 2), keepdim=True))
        return with_known(cond, ((x - middle) * some).float(), group)

    def where(self, row: int) -> dict[str, Any]:
        """Which residue of the structure this is."""
        b = self.backbone
        return {"chain": str(b.chain[row]), "number": int(b.number[row]), "kind": b.sequence[row]}


def from_remarks(remarks: Sequence[str], name: str) -> tuple[Contig, Range | None]:
    """The contig and the total of a standard problem's REMARK 999.

    Raises:
        InputError: there is none, or one that cannot be used.
    """
    words, totals = [], {}
    for line in remarks:
        if found := _INPUT.match(line):
            chain, first, last, group = found.groups()
            words.append(f"{chain or ''}{first}-{last}" + f"@{group}" * bool(chain and group))
        elif found := _TOTAL.match(line):
            totals[found[1]] = int(found[2])
    if not words:
        raise InputError(
            f"motif={name} has no contig in REMARK 999: give contigs=, such as 10-40/A163-181/10-40"
        )
    kept = [w for w in words if w not in ("0-0", "0")]
    contig = parse_contig("/".join(kept), f"REMARK 999 of {name}, contigs")
    if not totals:
        return contig, None
    low, high = contig.range
    return contig, (totals.get("MINIMUM", low), totals.get("MAXIMUM", high))


def _rows(
    backbone: Backbone, part: Fixed, contig: Contig, name: str, refused: Mapping[str | None, str]
) -> Int[np.ndarray, " l"]:
    """The rows of a part's residues, in order."""
    if part.chain not in backbone.chains:
        why = refused.get(part.chain) or f"its chains are {_few(backbone.chains)}"
        raise contig.error(part, f"{name} has no chain {part.chain} that can be used ({why})")
    mine = np.flatnonzero(backbone.chain == part.chain)
    numbers = backbone.number[mine]
    inside = mine[(numbers >= part.first) & (numbers <= part.last)]
    if len(coded := inside[backbone.insertion[inside] != ""]):
        found = [f"{backbone.number[k]}{backbone.insertion[k]}" for k in coded]
        raise contig.error(
            part,
            f"chain {part.chain} of {name} has insertion codes there ({_few(found)}); renumber its "
            "residues",
        )
    missing = sorted({*range(part.first, part.last + 1)} - {*backbone.number[inside].tolist()})
    if missing:
        raise contig.error(
            part,
            f"chain {part.chain} of {name} has no residue {_few(missing)} with N, CA and C; it has "
            f"{_few(_spans(numbers))}",
        )
    return inside[np.argsort(backbone.number[inside], kind="stable")]


def _spans(numbers: Int[np.ndarray, " l"]) -> list[str]:
    """1-20, 25-30: runs of numbers."""
    ordered = np.unique(numbers)
    cuts = np.split(ordered, np.flatnonzero(np.diff(ordered) != 1) + 1)
    return [f"{c[0]}-{c[-1]}" if len(c) > 1 else f"{c[0]}" for c in cuts]


def _few(names: Sequence[Any]) -> str:
    shown = ", ".join(str(n) or "(no name)" for n in names[:SHOWN])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > SHOWN else shown
