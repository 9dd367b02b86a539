"""Work on many molecules shared between processes, results in order.

Processes are spawned, not forked: a fork of a process that has started threads (PyTorch, BLAS)
may hang. So `work` must be a function of a module, and a script needs the usual
`if __name__ == "__main__"`. Each process keeps its linear algebra to one thread.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import TypeVar

from threadpoolctl import threadpool_limits

from sciffusion.errors import InputError

Item, Result = TypeVar("Item"), TypeVar("Result")
Progress = Callable[[int], None]

AHEAD = 3
"""Items that are taken ahead for each process."""


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
    alone = min(workers or cores(), len(items)) <= 1
    results = []
    for result in streamed(work, items, 1 if alone else workers):
        results.append(result)
        if progress is not None:
            progress(1)
    return results


def streamed(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """The same one by one; only a few items are taken ahead, so there may be any number of them."""
    workers = workers or cores()
    if workers == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(_pool(workers).submit(work, item))
            if len(waiting) > AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        _pool.cache_clear()
        raise
    finally:
        for future in waiting:
            future.cancel()


def check_not_a_worker() -> None:
    """To be called before a lock is taken and work shared out.

    Raises:
        InputError: this process is a worker that runs the script's own code once more, which would
            wait for its parent for ever.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError('put the code of your script under `if __name__ == "__main__":`')


@cache
def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _one_thread)


def _one_thread() -> None:
    """One thread of linear algebra, in the libraries that are loaded and in those to come."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    threadpool_limits(1)
