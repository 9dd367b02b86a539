"""Lengths and secondary structure as people type them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from sciffusion.domains.protein.data import UNKNOWN_SS
from sciffusion.domains.protein.secondary import LETTERS
from sciffusion.errors import InputError

Range = tuple[int, int]
CODES = {**{letter: code for code, letter in enumerate(LETTERS)}, "C": 0, "X": UNKNOWN_SS}
CODES["-"] = UNKNOWN_SS


def parse_length(length: str | int | Sequence[int]) -> list[list[Range]]:
    """Ranges of residues: those of the chains (`+`) of each kind of sample (`,`).

    Raises:
        InputError: it cannot be read, a chain has no residues, or a range ends before it begins.
    """
    text = str(length) if isinstance(length, str | int) else ",".join(map(str, length))
    return [[_range(part.strip(), text) for part in k.split("+")] for k in text.split(",")]


def _range(part: str, text: str) -> Range:
    if not (found := re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)):
        raise InputError(
            f"length={text} cannot be read: give residues (100), a range (60-128), several with "
            "commas (60,80,100), or chains (40+40)"
        )
    low, high = int(found[1]), int(found[2] or found[1])
    if low < 1:
        raise InputError(f"length={text}: a chain has at least 1 residue")
    if high < low:
        raise InputError(f"length={text}: the range ends before it begins; write {high}-{low}")
    return low, high


def parse_ss(text: str) -> list[Int[Tensor, " l"]]:
    """Codes of the residues of each chain; `+` parts chains.

    Raises:
        InputError: a letter that is not known, or a chain without residues.
    """
    letters = str(text).strip().upper()
    for place, letter in enumerate(letters, 1):
        if letter not in CODES and letter != "+":
            raise InputError(
                f"ss: {letter!r} at place {place} is not known: H helix, E strand, L or C loop, "
                "X or - not said"
            )
    if not all(parts := letters.split("+")):
        raise InputError(f"ss={text or repr('')}: a chain has at least 1 residue")
    return [torch.tensor([CODES[letter] for letter in part]) for part in parts]
