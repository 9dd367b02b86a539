"""The work of a preparation: files in chunks, each chunk turned into one shard by one process.

A chain is cut where it is broken and measured against the recipe. Where a chunk ends depends on the
input alone, so the store does not depend on the number of processes, nor on how often it was
stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from sciffusion.data import preparation
from sciffusion.data.preparation import Job
from sciffusion.domains.protein.backbone import CA, Backbone
from sciffusion.domains.protein.lists import Names
from sciffusion.domains.protein.records import Piece, Structure, parse
from sciffusion.domains.protein.store import write_shard
from sciffusion.errors import InputError

FILES, BYTES = 256, 1 << 24
"""Of a chunk, at most, but for its last file."""
SHORTEST = 4
"""Residues that a trace needs to have a dihedral."""
RG, POWER = 2.2, 0.38
"""Radius of gyration of compact chains, RG N^POWER in Angstrom (Skolnick et al. 1997)."""
TENS = 32
"""Residues of a bin of lengths in the card."""


@dataclass(frozen=True)
class Recipe:
    """How chains become records; configs/prepare/protein.yaml says what each means."""

    min_length: int = 40
    max_length: int = 256
    long: str = "leave"
    gaps: str = "split"
    max_rg: float | None = None
    max_loop: float | None = None
    identity: float = 0.4

    def __post_init__(self) -> None:
        for name, known in (("long", ("leave", "crop")), ("gaps", ("split", "leave"))):
            if getattr(self, name) not in known:
                raise InputError(f"{name}={getattr(self, name)} is not known: {' or '.join(known)}")
        for name, least in (("min_length", SHORTEST), ("max_length", self.min_length)):
            value = getattr(self, name)
            if not isinstance(value, int) or not isinstance(least, int) or value < least:
                raise InputError(f"{name}={value} must be a whole number of at least {least}")
        for name, most in (("max_rg", np.inf), ("max_loop", 1.0), ("identity", 1.0)):
            value = getattr(self, name)
            if value is None and name != "identity":
                continue
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise InputError(f"{name}={value} must be a number from 0 to {most:g}")


@dataclass(frozen=True)
class Order:
    """What a job needs to know.

    Attributes:
        recipe: how chains become records.
        only: the chains to take; None takes all.
        clusters: of chains.
    """

    recipe: Recipe
    only: Names | None = None
    clusters: Names | None = None


@dataclass
class Notes(preparation.Notes):
    """What is known of a chunk, or of a store.

    Attributes:
        read: chains read.
        structures: files read.
        chains: that came in, at least with a part.
        records: that came of them.
        residues: of these.
        models: of the files, that were not used.
        left_out: a line each, for files, chains and parts of chains.
        lengths: records of so many residues, by the first of each TENS.
    """

    read: int = 0
    structures: int = 0
    chains: int = 0
    records: int = 0
    residues: int = 0
    models: int = 0
    left_out: list[str] = field(default_factory=list)
    lengths: Counter[str] = field(default_factory=Counter)

    @property
    def used(self) -> int:
        """Records that came in."""
        return self.records


def chunks(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Files in chunks."""
    chunk: list[Piece] = []
    size = 0
    for piece in pieces:
        chunk.append(piece)
        size += len(piece.data)
        if len(chunk) == FILES or size >= BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def work(job: Job) -> int:
    """Write the shard of a chunk, then its notes; returns how far the input was read."""
    notes, records = Notes(), []
    for piece in job.chunk:
        records += _records(parse(piece), piece.where, job.recipe, notes)
    for record in records:
        notes.records += 1
        notes.residues += len(record)
        notes.lengths[str(len(record) // TENS * TENS)] += 1
    if records:
        write_shard(job.shard, records)
    return job.done(notes, job.chunk[-1].position)


def _records(structure: Structure, where: str, order: Order, notes: Notes) -> list[Backbone]:
    """The records of a file."""
    asked = _asked(structure.name, order.only)
    if asked == []:
        return []
    notes.structures += 1
    if structure.models > 1:
        notes.models += structure.models - 1
        notes.left_out.append(f"{where}: it holds {structure.models} models; the first is taken")
    found: list[Backbone] = []
    served = {chain.chains[0] for chain in structure.chains}
    for name, line in structure.refused.items():
        if asked is None or name is None or name in asked:
            notes.left_out.append(line)
            notes.read += name not in served
    for chain in structure.chains:
        if asked is not None and chain.chains[0] not in asked:
            continue
        notes.read += 1
        if order.clusters is not None:
            chain = replace(chain, cluster=order.clusters.cluster(chain.name, structure.name))
        records, refused = cut(chain, order.recipe)
        notes.chains += bool(records)
        if refused:
            notes.leave(chain.source, "", "; ".join(refused))
        found += records
    if None not in structure.refused:
        for name in sorted(set(asked or ()) - served - structure.refused.keys()):
            notes.leave(f"{where}, chain {name}", "", "the list names it; it is not in the file")
    return found


def _asked(structure: str, only: Names | None) -> list[str] | None:
    """The chains of a file that are wanted; None is all of them."""
    return None if only is None or structure in only else only.chains(structure)


def cut(chain: Backbone, recipe: Recipe) -> tuple[list[Backbone], list[str]]:
    """(parts of a chain that come in, why others do not).

    Parts lie between breaks; what is longer than `max_length` is cropped to equal parts.
    """
    ends = np.flatnonzero(~chain.joined) + 1
    if len(ends) and recipe.gaps == "leave":
        return [], [f"it is broken at {len(ends)} place{'s' * (len(ends) > 1)}"]
    found, refused = [], []
    for start, stop in zip([0, *ends], [*ends, len(chain)], strict=True):
        pieces = 1
        if recipe.long == "crop":
            pieces = -(-(stop - start) // recipe.max_length)
        edges = np.linspace(start, stop, pieces + 1).round().astype(int)
        for first, last in pairwise(edges):
            part = chain[first:last]
            span = "" if len(part) == len(chain) else _span(part)
            if why := _unwanted(part, recipe):
                refused.append(f"residues {span}: {why}" if span else why)
            else:
                found.append(replace(part, name=f"{chain.name}:{span}" if span else chain.name))
    return found, refused


def _span(part: Backbone) -> str:
    """The first and last residue of a part, as in 12-57A."""
    ends = [f"{part.number[k]}{part.insertion[k]}" for k in (0, -1)]
    return "-".join(ends)


def _unwanted(part: Backbone, recipe: Recipe) -> str:
    """Why a part does not come in, if it does not."""
    length = len(part)
    if length < recipe.min_length:
        return f"{length} long, less than min_length={recipe.min_length}"
    if length > recipe.max_length:
        return f"{length} long, more than max_length={recipe.max_length} (crop it with long=crop)"
    if recipe.max_rg is not None:
        ratio = _gyration(part.coords[:, CA]) / (RG * length**POWER)
        if ratio > recipe.max_rg:
            return f"extended: its radius of gyration is {ratio:.2f} of the law's, over max_rg"
    if recipe.max_loop is not None:
        from sciffusion.domains.protein.secondary import LOOP, psea

        loop = float((psea(part.coords[:, CA]) == LOOP).mean())
        if loop > recipe.max_loop:
            return f"{loop:.0%} of it is neither helix nor strand, over max_loop"
    return ""


def _gyration(x: np.ndarray) -> float:
    """The radius of gyration, in Angstrom."""
    return float(np.sqrt(((x - x.mean(0)) ** 2).sum(-1).mean()))
