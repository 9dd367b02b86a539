"""Files turned into a store: in parallel, resumable, with a report. What is in them, a domain says.

A store is `part-*.arrow`, `left_out.txt` (a line for each record that did not come in, and why) and
`card.json` (what went in and what came out), written last. Until then `.parts/` holds the notes of
finished chunks: a second call goes on from them, and the store is the same byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import numpy as np
import pyarrow
from rich.console import Console
from rich.progress import Progress

from sciffusion.atomic import atomic_path
from sciffusion.data.download import digest
from sciffusion.data.pool import check_not_a_worker, streamed
from sciffusion.errors import InputError


def folder(file: Path) -> list[Path]:
    """The files of a folder; a file is its own."""
    return sorted(file.iterdir()) if file.is_dir() else [file]


@dataclass(frozen=True)
class Source:
    """Where records come from.

    Attributes:
        files: files and folders, in this order.
        cut: the pieces of a file or folder; each has a `position`, the bytes read so far.
        inside: the files that are read in a file or folder.
    """

    files: Sequence[Path]
    cut: Callable[[Path], Iterable[Any]]
    inside: Callable[[Path], list[Path]] = folder

    def facts(self) -> list[dict[str, Any]]:
        """Name, size and checksum of each file."""
        found = []
        for file in self.files:
            try:
                inside = self.inside(file)
                size = sum(f.stat().st_size for f in inside)
                sums = [digest(f, "sha256") for f in inside if f.is_file()]
            except OSError as error:
                raise InputError(f"cannot read {file}: {error.strerror}; check input=") from error
            whole = hashlib.sha256("".join(sums).encode()).hexdigest()
            sha256 = sums[0] if len(sums) == 1 else whole
            found.append({"name": file.name, "bytes": size, "sha256": sha256})
        return found

    @property
    def names(self) -> str:
        """For messages."""
        return ", ".join(file.name for file in self.files)


class Notes(ABC):
    """What is known of a chunk, or of a store.

    A domain's are a dataclass of numbers, lists and Counters, which add up.

    Attributes:
        read: records read.
        left_out: a line each.
    """

    read: int
    left_out: list[str]

    @property
    @abstractmethod
    def used(self) -> int:
        """Records that came in."""

    def leave(self, where: str, name: str, reason: str) -> None:
        """Note a record that does not come in."""
        self.left_out.append(" ".join(f"{where}: {name + ': ' if name else ''}{reason}".split()))

    def add(self, other: Self) -> None:
        """Note what another chunk has."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def card(self) -> dict[str, Any]:
        """What the card says of them: of lines their number, Counters by their keys."""
        said = dict(vars(self)) | {"left_out": len(self.left_out)}
        for name, value in said.items():
            if isinstance(value, Counter):
                said[name] = dict(sorted(value.items(), key=lambda kv: _sorting(kv[0])))
        return said

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """As they were written."""
        known = {name: found[name] for name in vars(cls())}
        return cls(**{k: Counter(v) if isinstance(v, dict) else v for k, v in known.items()})


def _sorting(key: str) -> tuple[int, str]:
    return (int(key), "") if key.lstrip("-").isdigit() else (0, key)


N = TypeVar("N", bound=Notes)


@dataclass(frozen=True)
class Job:
    """A chunk of pieces, where its shard and notes go, and how much of the input lies before it.

    `work(job)` writes both, the notes last (`done`), and returns how far the input was read.
    """

    chunk: Any
    recipe: Any
    shard: Path
    notes: Path
    before: int

    def done(self, notes: Notes, position: int) -> int:
        """Write the notes; returns how far the input was read when it was at `position`."""
        with atomic_path(self.notes) as temporary:
            temporary.write_text(json.dumps(vars(notes)))
        return self.before + position


@dataclass(frozen=True)
class Preparation(Generic[N]):
    """How a domain makes stores of its files.

    Attributes:
        domain: its name, as in "molecule".
        kind: what it notes.
        chunks: pieces in chunks; where one ends depends on the pieces alone.
        work: does a job; a function of a module, called in another process.
        recipe: what `work` needs to know.
        told: what the store follows from besides its files: it must be the same to go on.
        finish: of the store's directory and notes, done when all chunks are.
    """

    domain: str
    kind: type[N]
    chunks: Callable[[Iterable[Any]], Iterator[Any]]
    work: Callable[[Job], int]
    recipe: Any
    told: Mapping[str, Any]
    finish: Callable[[Path, N], None] = lambda out, notes: None

    def run(self, source: Source, out: Path, workers: int | None = None) -> N:
        """Make the store, go on with it, or leave it as it is where it is done.

        Raises:
            InputError: nothing to read or to write to, no record that can be used; or `out` holds a
                store of something else.
        """
        check_not_a_worker()
        told = json.loads(json.dumps({"files": source.facts(), **self.told}))
        with locked(out):
            card, parts = out / "card.json", out / ".parts"
            for leftover in out.glob(".*.tmp*"):  # of a call that was killed while it wrote
                leftover.unlink()
            if _same(card, told, out):
                shutil.rmtree(parts, ignore_errors=True)
                lines = (out / "left_out.txt").read_text().splitlines()
                return self.kind.of(json.loads(card.read_text()) | {"left_out": lines})
            if not _same(parts / "told.json", told, out):
                if any(out.glob("part-*.arrow")):
                    raise InputError(f"{out} holds a store without a card: name another directory")
                _write(parts / "told.json", told)
            try:
                notes = self._do_chunks(source, out, workers)
                if not notes.used:
                    first = notes.left_out[0] if notes.left_out else "there was none"
                    raise InputError(
                        f"no {self.domain} of {source.names} can be used; the first: {first}"
                    )
                self.finish(out, notes)
            except InputError:
                if not any(out.glob("part-*.arrow")):  # nothing to go on with
                    shutil.rmtree(parts)
                raise
            with atomic_path(out / "left_out.txt") as temporary:
                temporary.write_text("".join(f"{line}\n" for line in notes.left_out))
            _write(card, {"domain": self.domain, **told, **notes.card()})
            shutil.rmtree(parts)
        return notes

    def _do_chunks(self, source: Source, out: Path, workers: int | None) -> N:
        """Do the chunks that are not done; the notes of all."""
        noted: list[Path] = []
        sizes = [sum(f.stat().st_size for f in source.inside(file)) for file in source.files]

        def jobs() -> Iterator[Job]:
            before = 0
            for file, size in zip(source.files, sizes, strict=True):
                for chunk in self.chunks(source.cut(file)):
                    name = f"part-{len(noted):05d}"
                    noted.append(out / ".parts" / f"{name}.json")
                    if not noted[-1].exists():
                        yield Job(chunk, self.recipe, out / f"{name}.arrow", noted[-1], before)
                before += size

        console = Console(stderr=True)
        with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
            task = bar.add_task("preparing", total=sum(sizes))
            try:
                for position in streamed(self.work, jobs(), workers):
                    bar.update(task, completed=position)
            except BrokenProcessPool as error:
                raise InputError(
                    f"a process died while it prepared {self.domain}s (out of memory?): run again "
                    "to go on, with workers=1 to see where"
                ) from error
        notes = self.kind()
        for path in noted:
            notes.add(self.kind.of(json.loads(path.read_text())))
        return notes


def versions(*modules: Any) -> dict[str, str]:
    """Of the libraries that a store follows from: these modules and those that all stores need."""
    return {module.__name__: module.__version__ for module in (*modules, np, pyarrow)}


def given(config: Mapping[str, Any]) -> list[Path] | None:
    """The files of `input`, or None for a `dataset`; refuses both, none and standard input."""
    if (config["input"] is None) == (config["dataset"] is None):
        raise InputError("give input=FILE or dataset=NAME, one of the two")
    if config["input"] is None:
        return None
    names = [name.strip() for name in str(config["input"]).split(",")]
    if "-" in names:
        raise InputError("input=- cannot be resumed: save it as a file first")
    if config["out"] is None:
        raise InputError("give the directory of the store: out=DIR")
    return [Path(name) for name in names]


def check_workers(workers: Any) -> None:
    """Refuse what is no number of processes."""
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise InputError(f"workers={workers} must be at least 1")


def _same(path: Path, told: Mapping[str, Any], out: Path) -> bool:
    """Whether a file of an earlier call is there; it must be of the same files and recipe."""
    if not path.exists():
        return False
    try:
        before = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is garbled: remove {out}, or name another directory") from error
    for name, value in told.items():
        if before.get(name) != value:
            raise InputError(
                f"{out} holds a store of other {name} ({_difference(before.get(name), value)}): "
                "name another directory, or remove it"
            )
    return True


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        key = next((k for k in now if before.get(k) != now[k]), None)
        if key is not None:
            return f"{key}: {before.get(key)}, now {now[key]}"
    return "see its card.json"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """One process at a time in a directory; the others wait, then find it done."""
    import fcntl  # here: not on every system

    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = (out / ".lock").open("a")
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}; choose another out=") from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if [p.name for p in out.iterdir()] == [".lock"]:  # nothing came of it
                (out / ".lock").unlink()
                out.rmdir()
