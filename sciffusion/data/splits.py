"""Records to train on and records to measure against; which is which follows from a key alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from sciffusion.errors import InputError

T = TypeVar("T")


class Splits(Generic[T]):
    """Records to train on and records to measure against.

    Attributes:
        train, val: disjoint by key where they come from one store.

    Raises:
        InputError: there is nothing to train on.
    """

    def __init__(self, train: Sequence[T], val: Sequence[T]) -> None:
        if not train:
            raise InputError("the store holds nothing to train on: prepare it again")
        self.train, self.val = list(train), list(val)


def split_by(key: Callable[[T], str], records: Sequence[T], share: float) -> Splits[T]:
    """Split off a share of the keys; records of one key stay together.

    Which side a key falls on depends on the key alone.
    """
    train: list[T] = []
    val: list[T] = []
    for record in records:
        (val if hashed(key(record)) < share else train).append(record)
    if not train or not val:  # a handful of records: the last stands for the held-out ones
        train, val = list(records[:-1] or records), list(records[-1:])
    return Splits(train, val)


def hashed(key: str) -> float:
    """A number in [0, 1) that follows from the key."""
    return zlib.crc32(key.encode()) / 2**32
