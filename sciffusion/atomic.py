"""Files appear whole or not at all: write beside the goal, flush to disk, then rename.

A reader, a resumed run or a killed job never sees half a file.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sciffusion.errors import InputError

# What the place we write to can do to us. Other OSErrors raised inside the block (a lost
# connection, a missing source file) are not about this path and pass through.
MENDS = {
    errno.ENOSPC: "make room there or choose another disk",
    errno.EDQUOT: "make room there or choose another disk",
    errno.EFBIG: "choose a file system that holds files of this size",
    errno.ENOENT: "check the path",  # nothing can be made there, as in /proc
    errno.EACCES: "choose a place you may write to",
    errno.EPERM: "choose a place you may write to",
    errno.EROFS: "choose a place you may write to",
    errno.EISDIR: "name a file, not a directory",
    errno.ENOTDIR: "a part of the path is a file: choose another path",
    errno.EEXIST: "a part of the path is a file: choose another path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "check the disk",
}


@contextmanager
def atomic_path(final: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to, in the same folder, that becomes `final` on success.

    The folder is made if need be. The temporary name keeps the suffix of `final`, since many
    writers choose their format by it. On any failure `final` is left as it was and the temporary
    file is removed.

    Raises:
        InputError: `final` is a directory or a device, or cannot be written (no space, no
            permission, a file in place of a folder).
    """
    final = Path(final)
    goal = Path(os.path.realpath(final))  # through a link: replace the file, not the link
    temporary = goal.with_name(f".{goal.stem[:64]}.{secrets.token_hex(4)}.tmp{goal.suffix}")
    try:
        if goal.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(goal))
        if goal.exists() and not goal.is_file():
            raise InputError(f"cannot write {final}: it is not a regular file; name another file")
        goal.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, goal)
        with suppress(OSError):  # some file systems cannot flush a folder; the file is safe
            _flush(goal.parent)
    except OSError as error:
        ours = error.filename is None or str(error.filename) in _touched(temporary, goal)
        if not ours or error.errno not in MENDS:
            raise
        reason = os.strerror(error.errno)
        raise InputError(f"cannot write {final}: {reason}; {MENDS[error.errno]}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _touched(temporary: Path, goal: Path) -> set[str]:
    return {str(path) for path in (temporary, goal, *goal.parents)}


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
