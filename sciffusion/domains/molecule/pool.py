"""Work on many molecules shared between processes, results in order.

Processes are spawned, not forked: a fork of a process that has started threads (PyTorch, BLAS)
may hang. So `work` must be a function of a module, and a script needs the usual
`if __name__ == "__main__"`. Each process keeps its linear algebra to one thread.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item, Result = TypeVar("Item"), TypeVar("Result")
Progress = Callable[[int], None]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_out(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """`work` of every item, in order.

    Args:
        work: a function of a module, or a `functools.partial` of one.
        items: what can be pickled.
        workers: processes; 1 works here, None takes one a core. They stay for the next call.
        progress: called with the number of items finished, one by one.
    """
    workers = workers or cores()
    alone = min(workers, len(items)) <= 1
    results = []
    for result in map(work, items) if alone else _elsewhere(work, items, workers):
        results.append(result)
        if progress is not None:
            progress(1)
    return results


def _elsewhere(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    try:
        yield from _pool(workers).map(work, items)
    except BrokenProcessPool:
        _pool.cache_clear()
        raise


@cache
def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _one_thread)


def _one_thread() -> None:
    """One thread of linear algebra, in the libraries that are loaded and in those to come."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    threadpool_limits(1)
