"""Contigs: which residues of a motif stand where in a new chain, in RFdiffusion's syntax.

`10-40/A163-181/10-40` is a chain of 10 to 40 new residues, residues 163 to 181 of chain A, and 10
to 40 new ones. `/0 ` (with the space, or the space alone) begins another chain. `A121-125@B` puts a
part into the group B: parts of a group keep their place relative to each other, groups are free;
without @ all parts are of one group, as in RFdiffusion (Watson et al. 2023).

Lengths are drawn uniformly in their ranges under the condition that they fit the total, which is
the law of drawing again until they do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sciffusion.errors import InputError

Range = tuple[int, int]
ONE_GROUP = "A"
"""The group of parts that name none."""
_PART = re.compile(
    r"(?P<chain>[A-Za-z]+)(?P<first>-?\d{1,9})(?P<code>[A-Za-z]?)"
    r"(?:-(?P<last>-?\d{1,9})(?P<code2>[A-Za-z]?))?(?:@(?P<group>[A-Za-z0-9]+))?"
    r"|(?P<low>\d{1,9})(?:-(?P<high>\d{1,9}))?"
)


@dataclass(frozen=True)
class Free:
    """New residues, as many as lie in a range."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low}" if self.low == self.high else f"{self.low}-{self.high}"


@dataclass(frozen=True)
class Fixed:
    """Residues of the motif.

    Attributes:
        chain, first, last: as the file names them; both ends belong to it.
        group: parts of a group keep their place relative to each other.
        span: the characters of the contig that say so.
    """

    chain: str
    first: int
    last: int
    group: str = ONE_GROUP
    span: tuple[int, int] = (0, 0)

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"{self.chain}{self.first}-{self.last}"


Part = Free | Fixed


@dataclass(frozen=True)
class Contig:
    """Chains of parts.

    Attributes:
        chains: the parts of each.
        text: as it was typed, for messages.
        source: what gave it, for messages.
    """

    chains: tuple[tuple[Part, ...], ...]
    text: str = ""
    source: str = "contigs"

    def __str__(self) -> str:
        """As `parse_contig` reads it."""
        many = len(self.groups) > 1

        def shown(part: Part) -> str:
            grouped = many and isinstance(part, Fixed)
            return f"{part}@{part.group}" if grouped and isinstance(part, Fixed) else str(part)

        return "/0 ".join("/".join(map(shown, chain)) for chain in self.chains)

    @property
    def parts(self) -> list[Part]:
        """Of all chains."""
        return [part for chain in self.chains for part in chain]

    @property
    def fixed(self) -> list[Fixed]:
        """Parts of the motif."""
        return [part for part in self.parts if isinstance(part, Fixed)]

    @property
    def groups(self) -> list[str]:
        """Names of the groups, sorted."""
        return sorted({part.group for part in self.fixed})

    @property
    def range(self) -> Range:
        """Residues in all: the fewest and the most."""
        low = sum(p.low if isinstance(p, Free) else len(p) for p in self.parts)
        high = sum(p.high if isinstance(p, Free) else len(p) for p in self.parts)
        return low, high

    def error(self, part: Fixed, why: str) -> InputError:
        """About one part."""
        return fault(self.text, part.span, why, self.source)

    @cached_property
    def _free(self) -> list[Range]:
        return [(p.low, p.high) for p in self.parts if isinstance(p, Free)]

    def drawn(self, u: Sequence[float], total: Range | None = None) -> Contig:
        """With one length for each range of new residues.

        Args:
            u: a number in (0, 1) for each.
            total: residues in all, the fewest and the most; it must fit (see `fit`).
        """
        fixed = sum(map(len, self.fixed))
        low, high = self.range if total is None else total
        left = iter(draw_lengths(self._free, (low - fixed, high - fixed), u))

        def chosen(part: Part) -> Part:
            return part if isinstance(part, Fixed) else Free(k := next(left), k)

        chains = tuple(tuple(chosen(p) for p in chain) for chain in self.chains)
        return Contig(chains, self.text, self.source)

    def fit(self, total: Range | None) -> Range:
        """The total where one is asked for, else what the contig makes.

        Raises:
            InputError: the parts cannot have this total.
        """
        low, high = self.range
        if total is None:
            return low, high
        if total[0] > high or total[1] < low:
            asked = str(Free(*total))
            raise InputError(
                f"total={asked} does not fit {self.source}={self.text}: its parts make "
                f"{Free(low, high)} residues; change total= or the ranges"
            )
        return max(low, total[0]), min(high, total[1])


def fault(text: str, span: tuple[int, int], why: str, source: str = "contigs") -> InputError:
    """What is wrong at which characters."""
    at = text[span[0] : span[1]]
    shown = f" ({at})" if at else ""
    return InputError(f"{source}={text}: at character {span[0] + 1}{shown}: {why}")


def parse_contig(text: str, source: str = "contigs") -> Contig:
    """The chains and parts of a contig; brackets around it, as RFdiffusion has them, are let be.

    Raises:
        InputError: at which character it cannot be understood, and why.
    """
    bare = re.sub(r"[\[\]'\"]", " ", text)  # same places
    chains: list[tuple[Part, ...]] = []
    words = list(re.finditer(r"\S+", bare))
    if not words:
        raise fault(text, (0, 0), "it is empty; write e.g. 10-40/A163-181/10-40", source)
    for word in words:
        place, parts = word.start(), []
        pieces = word[0].split("/")
        if len(pieces) > 1 and pieces[-1] == "0" and word is not words[-1]:
            pieces.pop()  # "/0 " ends a chain
        for piece in pieces:
            parts.append(_part(text, piece, place, source))
            place += len(piece) + 1
        if not any(isinstance(p, Fixed) or p.low for p in parts):
            why = "a chain has at least 1 residue"
            raise fault(text, (word.start(), word.end()), why, source)
        chains.append(tuple(parts))
    contig = Contig(tuple(chains), text, source)
    if not contig.fixed:
        why = "no part of it is of the motif; name residues such as A163-181"
        raise fault(text, (0, len(text)), why, source)
    _check_overlap(contig)
    return contig


def _part(text: str, piece: str, place: int, source: str) -> Part:
    span = (place, place + len(piece))
    if not piece:
        raise fault(text, span, "an empty part; one / stands between two parts", source)
    found = _PART.match(piece)
    if found is None or found.end() < len(piece):
        off = place + (found.end() if found else 0)
        why = "cannot be read; parts are 10-40, 15, A163-181 or A163-181@B"
        raise fault(text, (off, place + len(piece)), why, source)
    if found["chain"] is None:
        low, high = int(found["low"]), int(found["high"] or found["low"])
        if high < low:
            raise fault(text, span, f"it ends before it begins; write {high}-{low}", source)
        if high == 0:
            why = "no residues; a new chain begins after '/0 ' with a space"
            raise fault(text, span, why, source)
        return Free(low, high)
    if found["code"] or found["code2"]:
        which = "code" if found["code"] else "code2"
        off = place + found.start(which)
        why = "insertion codes cannot be named; renumber the residues of the file"
        raise fault(text, (off, off + 1), why, source)
    first, last = int(found["first"]), int(found["last"] or found["first"])
    if last < first:
        why = f"it ends before it begins; write {found['chain']}{last}-{first}"
        raise fault(text, span, why, source)
    return Fixed(found["chain"], first, last, found["group"] or ONE_GROUP, span)


def _check_overlap(contig: Contig) -> None:
    before: list[Fixed] = []
    for part in contig.fixed:
        for other in before:
            same = other.chain == part.chain
            if same and other.first <= part.last and part.first <= other.last:
                raise contig.error(part, f"overlaps {other}; a residue can stand in one place only")
        before.append(part)


def parse_total(total: str | int) -> Range:
    """116 or 50-75.

    Raises:
        InputError: it is neither.
    """
    found = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", str(total))
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < low <= high:
        raise InputError(f"total={total} must be residues (116) or a range of them (50-75)")
    return low, high


def draw_lengths(ranges: Sequence[Range], total: Range, u: Sequence[float]) -> list[int]:
    """A length in each range, uniform among all choices whose sum lies in `total`.

    Args:
        u: a number in (0, 1) for each range.
    """
    spare = max(total[1] - sum(low for low, _ in ranges), 0)
    ranges = [(low, min(high, low + spare)) for low, high in ranges]
    ways = [np.ones(1)]  # ways[k][s]: of the last k ranges to sum to s
    for low, high in reversed(ranges):
        choices = np.r_[np.zeros(low), np.ones(high - low + 1)]
        ways.append(np.convolve(choices, ways[-1]))
    least, most = total
    found = []
    for (low, high), after, v in zip(ranges, ways[-2::-1], u, strict=False):
        below = np.r_[0.0, np.cumsum(after)]

        def upto(s: np.ndarray, below: np.ndarray = below) -> np.ndarray:
            summed: np.ndarray = below[np.clip(s + 1, 0, len(below) - 1)]
            return summed

        lengths = np.arange(low, high + 1)
        share = np.cumsum(upto(most - lengths) - upto(least - 1 - lengths))
        k = int(lengths[min(np.searchsorted(share, v * share[-1], "right"), high - low)])
        found.append(k)
        least, most = least - k, most - k
    return found
