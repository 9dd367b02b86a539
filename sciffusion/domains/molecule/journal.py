"""What a long request has done so far: a window of molecules a pair of files, in OUT.partial/.

A window is done when its record is there, and both its files appear whole or not at all. So a
killed request goes on with the windows that are missing, any number of processes on machines that
share a file system can add theirs, and the windows in order are the result.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sciffusion.atomic import atomic_path
from sciffusion.errors import InputError

PATIENCE = 60.0
"""Seconds that a file of another machine may take to be seen here."""


class Journal:
    """The partial results of a request.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, identity: Mapping[str, Any], resume: bool = True) -> str:
        """Go on with what is there if it came of the same request, else start over.

        Args:
            identity: everything that the result depends on, as JSON.

        Returns:
            what a person should know; "" where there is nothing to tell.

        Raises:
            InputError: the folder holds other things.
        """
        file = self.folder / "request.json"
        before: dict[str, Any] = {}
        if file.exists():
            try:
                before = json.loads(file.read_text())
            except (OSError, ValueError):
                before = {"request.json": "damaged"}
        if before == identity and resume:
            done = len(list(self.folder.glob("window-*.json")))
            return f"going on after {done} windows that {self.folder} holds" if done else ""
        changed = sorted(k for k in {**before, **identity} if before.get(k) != identity.get(k))
        if self.folder.exists():
            names = [p.name.lstrip(".") for p in self.folder.iterdir()]
            if foreign := [n for n in names if not n.startswith(("request.", "window-"))]:
                raise InputError(f"{self.folder} holds {foreign[0]}, not made here: move it away")
            shutil.rmtree(self.folder)
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(identity, indent=1))
        if before and resume:
            return f"{self.folder} is of another request ({', '.join(changed)}): starting over"
        return ""

    def _path(self, window: int, suffix: str) -> Path:
        return self.folder / f"window-{window:08d}{suffix}"

    def has(self, window: int) -> bool:
        """Whether this window is done."""
        return self._path(window, ".json").exists()

    def save(self, window: int, data: bytes, record: Mapping[str, Any]) -> None:
        """A window's bytes of the result and its record."""
        for suffix, content in ((".part", data), (".json", json.dumps(record).encode())):
            with atomic_path(self._path(window, suffix)) as temporary:
                temporary.write_bytes(content)

    def records(self, windows: int) -> list[dict[str, Any]]:
        """The records of all windows, in order.

        Raises:
            InputError: one is missing.
        """
        deadline = time.monotonic() + PATIENCE
        for window in range(windows):
            while not self.has(window):
                if time.monotonic() > deadline:
                    raise InputError(f"{self.folder} lacks window {window}: run the command again")
                time.sleep(0.5)
        return [json.loads(self._path(w, ".json").read_text()) for w in range(windows)]

    def join(self, windows: int, out: Path) -> None:
        """The windows' bytes in order as one file."""
        with atomic_path(out) as temporary, temporary.open("wb") as result:
            for window in range(windows):
                with self._path(window, ".part").open("rb") as part:
                    shutil.copyfileobj(part, result)

    def clear(self) -> None:
        """Remove it all."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def clear_if_empty(self) -> None:
        """Remove it where no window is done."""
        if not any(self.folder.glob("window-*.json")):
            self.clear()
