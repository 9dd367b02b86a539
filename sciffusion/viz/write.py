"""Pictures and pages appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from sciffusion.atomic import atomic_path


def write_whole(data: bytes, path: str | os.PathLike[str]) -> Path:
    """Write a file, making its folder if need be.

    Raises:
        InputError: the path is a directory or a device, or cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)
