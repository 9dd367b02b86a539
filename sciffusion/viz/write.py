"""Pictures and pages appear whole or not at all: written beside the goal, then renamed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from sciffusion.errors import InputError


def write_whole(data: bytes, path: str | os.PathLike[str]) -> Path:
    """Write a file, making its folder if need be.

    Raises:
        InputError: the path is a directory or a device, or cannot be written.
    """
    path = Path(path)
    goal = Path(os.path.realpath(path))
    if goal.exists() and not goal.is_file():
        raise InputError(f"cannot write {path}: it is not a regular file; name another file")
    temporary = goal.with_name(f".{goal.stem[:64]}.{secrets.token_hex(4)}.tmp")
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(goal)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; choose a place with room that you may write to"
        ) from error
    finally:
        if temporary.exists():
            temporary.unlink()
    return path
