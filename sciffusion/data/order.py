"""The order of the data is a function of (seed, position): resumed and parallel runs agree.

Position p of the training stream is record perm_(p // n)[p % n], a fresh permutation for each pass.
Step k of a global batch of B takes positions kB, ..., kB + B - 1; a process takes its slice. A data
set of records of different sizes may `arrange` a permutation so that a batch holds like sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sciffusion.core.rng import Rng


class Ordered(Dataset):
    """A gatherable data set seen through the training stream.

    Batches gain "place" (b,), the place in the global batch. Where the data set has a method
    `arrange(order, batch_size)` each pass is as long as its answer: a whole number of batches.
    """

    def __init__(self, dataset: Any, seed: int, batch_size: int) -> None:
        self.dataset, self.seed, self.batch_size = dataset, seed, batch_size
        self.arranged = hasattr(dataset, "arrange") and len(dataset) >= batch_size
        self.length = len(dataset) // batch_size * batch_size if self.arranged else len(dataset)
        self._permutation = lru_cache(maxsize=2)(self._draw)

    def __getstate__(self) -> dict[str, Any]:  # caches do not travel to worker processes
        return {k: v for k, v in self.__dict__.items() if k != "_permutation"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._permutation = lru_cache(maxsize=2)(self._draw)

    def _draw(self, epoch: int) -> Tensor:
        index = torch.arange(len(self.dataset))
        order = Rng(self.seed, index, epoch).uniform("order").argsort(stable=True)
        return self.dataset.arrange(order, self.batch_size) if self.arranged else order

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return self.__getitems__([position])

    def __getitems__(self, positions: list[int]) -> dict[str, Tensor]:
        p = torch.tensor(positions)
        epoch, within = p // self.length, p % self.length
        rows = torch.empty_like(p)
        for e in epoch.unique().tolist():
            rows[epoch == e] = self._permutation(e)[within[epoch == e]]
        batch: dict[str, Tensor] = self.dataset.gather(rows)
        return batch | {"place": p % self.batch_size}


class Steps(Sampler[list[int]]):
    """Positions of one process, step by step."""

    def __init__(
        self, first: int, last: int, batch_size: int, rank: int = 0, world: int = 1
    ) -> None:
        self.first, self.last, self.batch_size = first, last, batch_size
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.world
        for k in range(self.first, self.last):
            start = k * self.batch_size + self.rank * share
            yield list(range(start, start + share))


def _as_it_is(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch


def loader(
    dataset: Any,
    seed: int,
    batch_size: int,
    steps: Callable[[], Steps],
    workers: int = 0,
) -> DataLoader[dict[str, Tensor]]:
    """The training stream from `steps` on."""
    return DataLoader(
        Ordered(dataset, seed, batch_size),
        batch_sampler=steps(),
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
