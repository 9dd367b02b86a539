"""Images in memory, and the one rule by which they are split into training and test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Bool, Int, UInt8

from sciffusion.errors import InputError


@dataclass(frozen=True)
class ImageSet:
    """Images of one size.

    Args:
        x: (N, H, W, C) pixels, 0 to 255.
        label: (N,) classes 0 .. len(classes) - 1; None where nothing is labelled.
        classes: a name for each class.
        name: of the data set and split, for reports.
        note: what was assumed in reading it.
    """

    x: UInt8[np.ndarray, "n h w c"]
    label: Int[np.ndarray, " n"] | None
    classes: list[str] | None
    name: str
    note: str = ""

    def __len__(self) -> int:
        return len(self.x)


class Splits(NamedTuple):
    """What a source gives."""

    train: ImageSet
    test: ImageSet


class ImageSource(Protocol):
    """Anything that can be read as two sets of images."""

    def load(self) -> Splits:
        """Read it; `InputError` says what is wrong with the files."""
        ...


def split(
    x: UInt8[np.ndarray, "n h w c"],
    label: Int[np.ndarray, " n"] | None,
    test: Bool[np.ndarray, " n"],
    classes: list[str] | None,
    name: str,
    note: str = "",
) -> Splits:
    """Two sets: the images where `test` is False, and those where it is True."""

    def part(rows: Bool[np.ndarray, " n"], suffix: str) -> ImageSet:
        own = None if label is None else label[rows].astype(np.int64)
        return ImageSet(x[rows], own, classes, f"{name}/{suffix}", note)

    return Splits(part(~test, "train"), part(test, "test"))


def hash_order(keys: Sequence[str], seed: int = 0) -> Int[np.ndarray, " n"]:
    """An order of the keys that looks random and never changes: by the SHA-256 of each."""
    hashes = [hashlib.sha256(f"{seed}:{key}".encode()).digest() for key in keys]
    return np.array(sorted(range(len(keys)), key=lambda i: hashes[i]), dtype=np.int64)


def stratified_test(
    keys: Sequence[str],
    label: Int[np.ndarray, " n"] | None,
    fraction: float,
    where: str,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> Bool[np.ndarray, " n"]:
    """Which records are for testing: a fixed share of each class, chosen by hashes of the keys.

    At least one record of each class lands on either side.

    Args:
        keys: a name for each record, such as a file's.
        label: (N,) classes; None counts all records as one class.
        fraction: of the records that are for testing, between 0 and 1.
        where: the file or folder, for messages.
        classes: names of the classes, for messages.
        seed: of the hashes.

    Raises:
        InputError: a class has a single record, or the fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise InputError(f"{where}: test_fraction must lie between 0 and 1, got {fraction}")
    label = np.zeros(len(keys), np.int64) if label is None else label
    test = np.zeros(len(keys), bool)
    order = hash_order(keys, seed)
    for c in np.unique(label):
        rows = order[label[order] == c]
        if len(rows) < 2:
            called = f"class {classes[c] if classes else c!s}"
            raise InputError(
                f"{where}: {called} has a single image ({keys[rows[0]]}), which cannot be both "
                "training and test: add images or remove the class"
            )
        count = min(max(round(fraction * len(rows)), 1), len(rows) - 1)
        test[rows[:count]] = True
    return test


def grouped_test(
    groups: np.ndarray, fraction: float, where: str, seed: int = 0
) -> Bool[np.ndarray, " n"]:
    """Which records are for testing, with all records of a group on one side.

    Whole groups are taken, in the order of their hashes, until the share is reached.

    Raises:
        InputError: there is a single group, or the fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise InputError(f"{where}: test_fraction must lie between 0 and 1, got {fraction}")
    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError(f"{where}: a single group cannot be split: give no group_key")
    order = hash_order([str(n) for n in names], seed)
    before = np.cumsum(sizes[order]) - sizes[order]
    taken = before < fraction * len(groups)
    taken[0], taken[-1] = True, False
    chosen = np.zeros(len(names), bool)
    chosen[order[taken]] = True
    return chosen[member]
