"""What long requests share: processes that wait for each other, a clean stop, a digest."""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch


def digest(network: torch.nn.Module) -> str:
    """Of the weights: which network a result came of."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


@contextmanager
def team(world: int) -> Iterator[Callable[[], Any]]:
    """A barrier between the processes of torchrun."""
    if world == 1:
        yield lambda: None
        return
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=timedelta(days=30))
    try:
        yield dist.barrier
    finally:
        dist.destroy_process_group()


@contextmanager
def terminated() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that no half file stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(*_: Any) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
