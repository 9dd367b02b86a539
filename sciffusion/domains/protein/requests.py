"""What people ask for, understood and checked: lengths, fold, symmetry, a structure to vary.

Nothing is drawn before all of it makes sense. A sample's lengths follow from (seed, sample).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sciffusion.core.rng import Rng
from sciffusion.domains.protein.backbone import Backbone
from sciffusion.domains.protein.motif import Motif, Placement
from sciffusion.domains.protein.typed import Range, parse_length, parse_ss
from sciffusion.errors import InputError

MOST_SAMPLES, MOST_RESIDUES = 1 << 20, 1 << 16
NOISE = 5.0
"""Angstrom of noise that a given structure is varied with by default."""
LIKE = 24
"""Training chains nearest in length that a sample's shares of helix and strand are drawn from."""
SECONDS = {"strand": (0.36, 0.51), "helix": (0.57, 1.38)}
"""Share of one, by that of the other, in PDB chains of 40 to 256 residues: a - b x, at least 0."""


@dataclass(frozen=True)
class Settings:
    """What is asked for; configs/request/protein.yaml says what each means.

    Args:
        origin: the structure to vary, or its file; `from` in a configuration.
        motif, contigs, total: what is kept of a structure, and the residues in all (see `motif`).

    Raises:
        InputError: a setting out of its range, or settings that contradict each other.
    """

    n: int = 10
    length: str | int | Sequence[int] | None = None
    ss: str | None = None
    helix: float | None = None
    strand: float | None = None
    label: int | str | None = None
    typical: bool = True
    apart: bool = True
    guidance: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, math.inf)
    temperature: float | None = None
    rotate: bool = False
    symmetry: str | None = None
    origin: str | Path | Backbone | None = None
    noise: float | None = None
    motif: str | Path | Backbone | None = None
    contigs: str | None = None
    total: str | int | None = None
    seed: int = 0
    guide: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not (_whole(self.n) and 1 <= self.n <= MOST_SAMPLES):
            raise InputError(f"n={self.n} must be a whole number between 1 and {MOST_SAMPLES}")
        if not _whole(self.seed):
            raise InputError(f"seed={self.seed} must be a whole number")
        self._check_fold()
        if self.temperature is not None and not (_number(self.temperature, 0, 10)):
            raise InputError(
                f"temperature={self.temperature} must lie between 0 and 10, or be null"
            )
        if self.noise is not None and not _number(self.noise, 0, math.inf):
            raise InputError(f"noise={self.noise} must be a number of Angstrom, more than 0")
        if self.noise is not None and self.origin is None:
            raise InputError(f"noise={self.noise} is for a structure to vary: give from=FILE too")
        if self.origin is not None and self.length is not None:
            raise InputError(
                f"length={self.length} and from=: the structure has its own length; leave one out"
            )
        if self.symmetry is not None and (self.origin is not None or self.rotate):
            other = "rotate=true" if self.rotate else "from="
            raise InputError(f"symmetry={self.symmetry} and {other} do not go together: choose one")
        self._check_motif()

    def _check_motif(self) -> None:
        for name in ("contigs", "total"):
            if self.motif is None and (value := getattr(self, name)) is not None:
                raise InputError(f"{name}={value} is for a motif: give motif=FILE too")
        if self.motif is None:
            return
        others = {"length": "total=", "ss": "helix= or strand=", "origin": None, "symmetry": None}
        for name, instead in others.items():
            if getattr(self, name) is not None:
                shown = "from" if name == "origin" else name
                use = f"; use {instead}" if instead else ": choose one"
                raise InputError(f"motif= and {shown}= do not go together{use}")

    def _check_fold(self) -> None:
        for name in ("helix", "strand"):
            value = getattr(self, name)
            if value is not None and not _number(value, 0, 1):
                raise InputError(f"{name}={value} is a share of the residues: between 0 and 1")
        if (self.helix or 0) + (self.strand or 0) > 1:
            raise InputError(
                f"helix={self.helix} and strand={self.strand} are shares of the residues: together "
                "at most 1"
            )
        shares = [name for name in ("helix", "strand") if getattr(self, name) is not None]
        if self.ss is not None and shares:
            raise InputError(f"ss= says the fold of every residue: leave {shares[0]}= out")
        if not _number(self.guidance, -math.inf, math.inf):
            raise InputError(f"guidance.scale={self.guidance} must be a number; 1 is none")
        if self.label is not None and not re.fullmatch(r"\d{1,9}", str(self.label)):
            raise InputError(f"label={self.label} must be the number of a class")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Settings:
        """Those of a configuration that holds others too."""
        guidance = config["guidance"]
        own = {f.name: config[f.name] for f in fields(cls) if f.name in config}
        return cls(
            **own | {
                "origin": config["from"],
                "guidance": guidance["scale"],
                "guidance_interval": (guidance["low"], guidance["high"]),
            }
        )  # fmt: skip


class Request:
    """Settings worked out: the chains of each sample and what is told of them.

    Args:
        facts: of the domain: `lengths` and `largest` of what the network was trained on.
        copies: of the chains, by the symmetry.

    Raises:
        InputError: what is asked for cannot be understood, or contradicts itself.
    """

    def __init__(self, settings: Settings, facts: Mapping[str, Any], copies: int = 1) -> None:
        self.settings, self.facts, self.copies = settings, facts, copies
        self.origin, self.refused = _origin(settings.origin)
        codes = None if settings.ss is None else parse_ss(settings.ss)
        self._fixed = None if self.origin is None else [len(r) for r in _chains(self.origin)]
        self.motif = None
        if settings.motif is not None:
            self.motif = Motif.of(settings.motif, settings.contigs, settings.total)
        self._asked: list[list[Range]] = []
        if settings.length is not None:
            self._asked = parse_length(settings.length)
        if codes is not None:
            self._fit(codes)
        self.secondary = None if codes is None else torch.cat(codes).repeat(copies)
        longest = max(sum(high for _, high in kind) for kind in self._asked or [[]])
        most = longest * copies if self.motif is None else self.motif.total[1]
        if most > MOST_RESIDUES:
            name = "length" if self.motif is None else self.motif.contig.source
            asked = settings.length if self.motif is None else self.motif.contig.text
            raise InputError(f"{name}={asked}: {most} residues; at most {MOST_RESIDUES}")

        told = (self.secondary, self.content, settings.label, self.motif)
        if settings.guidance != 1 and all(what is None for what in told):
            raise InputError(
                f"guidance.scale={settings.guidance:g} needs something to guide to: ss=, helix=, "
                "strand= or label="
            )

    def _fit(self, codes: list[Int[Tensor, " l"]]) -> None:
        """Hold lengths and secondary structure against each other."""
        said = [len(c) for c in codes]
        if self._fixed is None and not self._asked:
            self._asked = [[(k, k) for k in said]]
            return
        whole = self._fixed or [low for low, _ in self._asked[0]]
        loose = len(self._asked) > 1 or any(a != b for kind in self._asked for a, b in kind)
        same = said == whole if len(said) > 1 else sum(said) == sum(whole)
        if loose or not same:
            other = f"length={self.settings.length}"
            if self.origin is not None:
                other = f"from={self.settings.origin} has {_plus(whole)}"
            raise InputError(
                f"ss says {_plus(said)} residues, {other}: they must be the same; X or - stands "
                "for a residue of which nothing is said"
            )

    @property
    def total(self) -> int:
        """Samples: n of each length."""
        return self.settings.n * max(1, len(self._asked))

    @cached_property
    def chains(self) -> list[tuple[int, ...]]:
        """Residues of the chains of each sample; the copies of a symmetry are chains too."""
        if self._fixed is not None:
            return [tuple(self._fixed)] * self.total
        if self.motif is not None:
            return [p.chains for p in self.placements]
        rng = Rng(self.settings.seed, torch.arange(self.total))
        if not self._asked:
            known = self.facts["lengths"]
            place = (rng.uniform("length") * len(known)).long().tolist()
            return [(known[k],) * self.copies for k in place]
        u = rng.uniform("length", (max(map(len, self._asked)),)).tolist()
        kinds = [self._asked[k % len(self._asked)] for k in range(self.total)]
        return [
            tuple(a + int(v * (b - a + 1)) for (a, b), v in zip(kind, row, strict=False))
            * self.copies
            for kind, row in zip(kinds, u, strict=True)
        ]

    @cached_property
    def placements(self) -> list[Placement]:
        """Where the motif stands in each sample."""
        assert self.motif is not None
        return self.motif.placements(self.settings.seed, range(self.total))

    @cached_property
    def sizes(self) -> list[int]:
        """Residues of each sample."""
        return [sum(c) for c in self.chains]

    @cached_property
    def content(self) -> list[tuple[float, float]] | None:
        """Shares of (helix, strand) that each sample is told; None for nothing.

        The one that is not said is as in real chains. Where nothing at all is said, a sample is
        told the shares of a training chain of about its length: these are what a denoiser that must
        guess them gets wrong first.
        """
        said = self.settings
        if said.helix is not None or said.strand is not None:
            helix = _second("helix", said.strand) if said.helix is None else said.helix
            strand = _second("strand", said.helix) if said.strand is None else said.strand
            return [(helix, strand)]
        folds = self.facts.get("folds")
        told = (said.label, self.origin, self.motif)  # what is told otherwise
        free = not said.typical or any(what is not None for what in told)
        if free or self.secondary is not None or not folds:
            return None
        size = torch.tensor([row[0] for row in folds])
        length = torch.tensor([chains[0] for chains in self.chains])
        like = (size - length[:, None]).abs().argsort(dim=1, stable=True)[:, :LIKE]
        u = Rng(said.seed, torch.arange(self.total)).uniform("content")
        rows = like.gather(1, (u * like.shape[1]).long()[:, None])[:, 0].tolist()
        return [(folds[row][1], folds[row][2]) for row in rows]

    @property
    def prior(self) -> dict[str, Any]:
        """For `ProteinDomain.prior_cond`."""
        found: dict[str, Any] = {"lengths": self.chains, "content": self.content}
        found["secondary"] = None if self.secondary is None else [self.secondary]
        # The fold of a motif is known for nothing; networks are told shares or residues, not both.
        if self.motif is not None and self.content is None:
            found["secondary"] = [self.motif.told(p) for p in self.placements]
        found["label"] = None if self.settings.label is None else int(self.settings.label)
        return found

    @property
    def beyond(self) -> str:
        """A line where samples are longer than what the network was trained on."""
        longest, largest = max(self.sizes), self.facts["largest"]
        if longest <= largest:
            return ""
        return (
            f"{longest} residues are more than the network was trained on ({largest}): look at "
            "the result (said once)"
        )


def _origin(given: str | Path | Backbone | None) -> tuple[Backbone | None, list[str]]:
    """(the structure to vary, a line on each chain of its file that is left out)."""
    if given is None or isinstance(given, Backbone):
        return given, []
    from sciffusion.domains.protein.readers import read_structure
    from sciffusion.domains.protein.records import together

    try:
        structure = read_structure(given)
    except InputError as error:
        raise InputError(f"from={given}: {error}") from error
    return together(structure.chains), list(structure.left_out)


def _chains(backbone: Backbone) -> list[Backbone]:
    return [backbone[backbone.chain == name] for name in backbone.chains]


def _second(name: str, other: float | None) -> float:
    assert other is not None
    most, fall = SECONDS[name]
    return min(max(0.0, most - fall * other), 1 - other)


def _plus(lengths: Sequence[int]) -> str:
    return "+".join(map(str, lengths))


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _number(value: Any, low: float, high: float) -> bool:
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and math.isfinite(value) and low <= value <= high
