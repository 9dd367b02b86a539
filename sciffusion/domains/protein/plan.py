"""Which chains are measured: the settings, and the real chains that stand beside the samples.

All of it is decided before anything is measured, so that the work can be counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Int

from sciffusion.domains.protein import similarity
from sciffusion.domains.protein.backbone import Backbone
from sciffusion.errors import InputError

FEWEST = 50
"""References; where fewer are as long as the samples, the nearest in length are taken too."""
LIKE = 0.05
"""Chains of a floor are within this share of a sample's length, where there are such."""
HELD_OUT = 25
"""References, at most, whose novelty is the floor of the samples'; a mean needs no more."""


@dataclass(frozen=True)
class ProteinMeasures:
    """What is drawn and measured.

    Args:
        n: samples.
        lengths: of the samples, e.g. "60-128" or "100".
        pairs: pairs of samples that are aligned, at most; fewer samples are compared then. 0 is
            off.
        novelty: training chains, the most alike by a quick ranking, that are aligned with each
            sample; 0 is off, true is 100.
        external: a command that judges designs (see `external`).
        workers: processes; None takes one a core.
        floors: sets of real chains that a floor is the mean of.
        resamples: bootstrap replicates.
        seed: of the bootstrap and of what is chosen at random.
    """

    n: int = 50
    lengths: str = "60-128"
    pairs: int = 300
    novelty: int = 100
    external: str | None = None
    workers: int | None = None
    floors: int = 3
    resamples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("pairs", 0), ("novelty", 0), ("floors", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InputError(f"{name}={value} must be a number, at least {least}")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> ProteinMeasures:
        """From a configuration that may hold more.

        Raises:
            InputError: a number that is too small or none.
        """
        known = {f.name: settings[f.name] for f in fields(cls) if f.name in settings}
        if known.get("novelty") is True:
            known["novelty"] = cls.novelty
        return cls(**known)

    def steps(
        self,
        samples: Sequence[Backbone],
        references: Sequence[Backbone],
        train: Sequence[Backbone],
    ) -> int:
        """How often `progress` counts, one for about 15 ms of a core."""
        return Plan.of(samples, references, train, self).steps


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        samples: those that are finite.
        references: held-out chains as long as the samples.
        held_out: some of them, whose novelty is the floor of the samples'.
        floors: training chains as long as the samples, a set a floor; none where they are too few.
        compared: samples whose pairs are aligned.
        steps: all the work, in pieces of about 15 ms of a core.
    """

    samples: list[Backbone]
    references: list[Backbone]
    held_out: list[Backbone]
    floors: list[Int[np.ndarray, " n"]]
    compared: Int[np.ndarray, " m"]
    steps: int

    @classmethod
    def of(
        cls,
        samples: Sequence[Backbone],
        references: Sequence[Backbone],
        train: Sequence[Backbone],
        how: ProteinMeasures,
    ) -> Plan:
        """Choose.

        Raises:
            InputError: no finite sample, no references or no training chains.
        """
        finite = [b for b in samples if np.isfinite(b.coords).all()]
        if not finite or not len(references) or not len(train):
            raise InputError(
                f"{len(finite)} finite samples, {len(references)} references and {len(train)} "
                "training chains: give some of each"
            )
        lengths = np.array([len(b) for b in finite])
        rng = np.random.default_rng(how.seed)
        against = _as_long(references, lengths)
        pool = np.array([len(b) for b in train])
        sets = how.floors if len(pool) >= len(lengths) else 0
        floors = [_drawn(lengths, pool, rng) for _ in range(sets)]
        most = int((1 + np.sqrt(1 + 8 * how.pairs)) / 2) if how.pairs else 0
        compared = np.sort(rng.permutation(len(finite))[:most])
        held_out = [against[k] for k in rng.permutation(len(against))[:HELD_OUT]]
        steps = len(finite) + len(against) + len(union(floors))
        if similarity.installed():
            pairs = len(compared) * (len(compared) - 1) // 2
            steps += pairs * (2 if floors else 1)
            if how.novelty:
                both = len(finite) + len(held_out)
                steps += similarity.nearest_steps(both, len(train), how.novelty)
        return cls(finite, against, held_out, floors, compared, steps)


def _as_long(references: Sequence[Backbone], lengths: np.ndarray) -> list[Backbone]:
    """Those of the samples' lengths; with those that come nearest where they are few."""
    own = np.array([len(b) for b in references])
    beyond = np.maximum(lengths.min() - own, own - lengths.max()).clip(0)
    order = np.argsort(beyond, kind="stable")
    kept = order[: max(int((beyond == 0).sum()), FEWEST)]
    return [references[k] for k in np.sort(kept)]


def _drawn(
    lengths: Int[np.ndarray, " n"], pool: Int[np.ndarray, " k"], rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """For each sample another chain of about its length, at random; else the nearest in length."""
    free = np.ones(len(pool), bool)
    found = np.zeros(len(lengths), np.int64)
    for k in rng.permutation(len(lengths)):
        apart = np.where(free, np.abs(pool - lengths[k]), np.inf)
        found[k] = rng.choice(np.flatnonzero(apart <= max(apart.min(), LIKE * lengths[k])))
        free[found[k]] = False
    return found


def union(floors: Sequence[np.ndarray]) -> Int[np.ndarray, " k"]:
    """Training chains that are in any of the sets, in order."""
    return np.unique(np.concatenate(floors)) if floors else np.zeros(0, np.int64)
