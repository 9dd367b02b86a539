"""Files of molecules turned into a store: in parallel, resumable, with a report.

A store is `part-*.arrow` (molecules with their conformers), `left_out.txt` (a line for each record
that did not come in, and why) and `card.json` (what went in and what came out), written last.
Until then `.parts/` holds the notes of finished chunks: a second call goes on from them, and the
store is the same byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import rdkit
from rich.console import Console
from rich.progress import Progress

from sciffusion import __version__, resources
from sciffusion.atomic import atomic_path
from sciffusion.data.download import digest
from sciffusion.domains.molecule.pool import check_not_a_worker, streamed
from sciffusion.domains.molecule.readers import split
from sciffusion.domains.molecule.records import Piece
from sciffusion.domains.molecule.shards import Job, Notes, Recipe, chunks, read_notes, work
from sciffusion.domains.molecule.store import SCHEMA
from sciffusion.errors import InputError


@dataclass(frozen=True)
class Source:
    """Where molecules come from.

    Attributes:
        files: in this order.
        cut: the pieces of a file.
    """

    files: Sequence[Path]
    cut: Callable[[Path], Iterable[Piece]] = split

    def facts(self) -> list[dict[str, Any]]:
        """Name, size and checksum of each file."""
        found = []
        for file in self.files:
            try:
                inside = _inside(file)
                size = sum(f.stat().st_size for f in inside)
                sums = [digest(f, "sha256") for f in inside if f.is_file()]
            except OSError as error:
                raise InputError(f"cannot read {file}: {error.strerror}; check input=") from error
            whole = hashlib.sha256("".join(sums).encode()).hexdigest() if len(sums) > 1 else sums[0]
            found.append({"name": file.name, "bytes": size, "sha256": whole})
        return found


def run(config: Mapping[str, Any]) -> None:
    """The command: prepare what a configuration asks for and say what came of it.

    Raises:
        InputError: nothing to read or to write to, or no record that can be used.
    """
    from sciffusion.domains.molecule.deposits import deposit

    if (config["input"] is None) == (config["dataset"] is None):
        raise InputError("give input=FILE or dataset=NAME, one of the two")
    recipe = Recipe(**{f.name: config[f.name] for f in fields(Recipe) if f.name != "elements"})
    if config["elements"] is not None:
        symbols = config["elements"]
        symbols = symbols.strip("[]").split(",") if isinstance(symbols, str) else symbols
        recipe = replace(recipe, elements=tuple(str(symbol).strip() for symbol in symbols))
    out = None if config["out"] is None else Path(config["out"])
    if config["dataset"] == "molecules":
        source = embedded()
        out = out or embedded_path(recipe)
    elif config["dataset"] is not None:
        root = resources.cache_dir() if config["root"] is None else Path(config["root"])
        source = deposit(config["dataset"], root / config["dataset"])
        out = out or resources.cache_dir() / "molecules" / config["dataset"]
    else:
        source = Source([Path(name.strip()) for name in config["input"].split(",")])
        if "-" in config["input"].split(","):
            raise InputError("input=- cannot be resumed: save it as a file first")
        if out is None:
            raise InputError("give the directory of the store: out=DIR")
    workers = config["workers"]
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise InputError(f"workers={workers} must be at least 1")
    notes = prepare(source, out, recipe, workers)
    print(
        f"sciffusion: {out} holds {notes.molecules} molecules with {notes.conformers} conformers; "
        f"{len(notes.left_out)} of {notes.read} records left out"
        + (f", see {out / 'left_out.txt'}" if notes.left_out else "")
    )


def prepare(source: Source, out: Path, recipe: Recipe, workers: int | None = None) -> Notes:
    """Make the store, go on with it, or leave it as it is where it is done.

    Raises:
        InputError: see `run`; or `out` holds a store of something else.
    """
    check_not_a_worker()
    told = {
        "files": source.facts(),
        "recipe": asdict(recipe),
        "versions": {
            "sciffusion": __version__,
            "rdkit": rdkit.__version__,
            "numpy": np.__version__,
            "pyarrow": pyarrow.__version__,
        },
        "format": SCHEMA.metadata[b"sciffusion"].decode(),
    }
    told = json.loads(json.dumps(told))
    with _locked(out):
        card, parts = out / "card.json", out / ".parts"
        for leftover in out.glob(".*.tmp*"):  # of a call that was killed while it wrote
            leftover.unlink()
        if _same(card, told, out):
            shutil.rmtree(parts, ignore_errors=True)
            return _whole_notes(json.loads(card.read_text()), out)
        if not _same(parts / "told.json", told, out):
            if any(out.glob("part-*.arrow")):
                raise InputError(f"{out} holds a store without a card: name another directory")
            _write(parts / "told.json", told)
        try:
            notes = _run_chunks(source, out, recipe, workers)
            if not notes.molecules:
                first = notes.left_out[0] if notes.left_out else "there was none"
                raise InputError(f"no molecule of {_names(source)} can be used; the first: {first}")
        except InputError:
            if not any(out.glob("part-*.arrow")):  # nothing to go on with
                shutil.rmtree(parts)
            raise
        with atomic_path(out / "left_out.txt") as temporary:
            temporary.write_text("".join(f"{line}\n" for line in notes.left_out))
        summary = dict(vars(notes))
        summary["left_out"] = len(notes.left_out)
        for name in ("elements", "heavy", "charge"):
            summary[name] = dict(sorted(summary[name].items(), key=lambda kv: _sorting(kv[0])))
        _write(card, {"domain": "molecule", **told, **summary})
        shutil.rmtree(parts)
    return notes


def _sorting(key: str) -> tuple[int, str]:
    return (int(key), "") if key.lstrip("-").isdigit() else (0, key)


def _names(source: Source) -> str:
    return ", ".join(file.name for file in source.files)


def _whole_notes(card: Mapping[str, Any], out: Path) -> Notes:
    numbers = {name: card[name] for name in ("read", "molecules", "conformers", "atoms")}
    return Notes(**numbers, left_out=(out / "left_out.txt").read_text().splitlines())


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
        key = next(k for k in now if before.get(k) != now[k])
        return f"{key}: {before.get(key)}, now {now[key]}"
    return "see its card.json"


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def _run_chunks(source: Source, out: Path, recipe: Recipe, workers: int | None) -> Notes:
    """Do the chunks that are not done; the notes of all."""
    noted: list[Path] = []
    sizes = [sum(f.stat().st_size for f in _inside(file)) for file in source.files]

    def jobs() -> Iterator[Job]:
        before = 0
        for file, size in zip(source.files, sizes, strict=True):
            for groups in chunks(source.cut(file), recipe):
                name = f"part-{len(noted):05d}"
                noted.append(out / ".parts" / f"{name}.json")
                if not noted[-1].exists():
                    yield Job(groups, recipe, out / f"{name}.arrow", noted[-1], before)
            before += size

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("preparing", total=sum(sizes))
        try:
            for position in streamed(work, jobs(), workers):
                bar.update(task, completed=position)
        except BrokenProcessPool as error:
            raise InputError(
                "a process died while it prepared molecules (out of memory?): run again to go on, "
                "with workers=1 to see where"
            ) from error
    notes = Notes()
    for path in noted:
        notes.add(read_notes(path))
    return notes


def _inside(file: Path) -> list[Path]:
    return sorted(file.iterdir()) if file.is_dir() else [file]


@contextmanager
def _locked(out: Path) -> Iterator[None]:
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


EMBEDDED = Recipe()
"""How the conformers of the embedded molecules are made."""


def embedded() -> Source:
    """The molecules that come with the library."""
    return Source([resources.path("datasets", "molecules/molecules.csv")])


def embedded_path(recipe: Recipe = EMBEDDED, cache: Path | None = None) -> Path:
    """Where their store is kept; another list, recipe or RDKit has another place."""
    told = json.dumps([embedded().facts(), asdict(recipe), rdkit.__version__, __version__])
    name = hashlib.sha256(told.encode()).hexdigest()[:12]
    return (cache or resources.cache_dir()) / "molecules" / f"embedded-{name}"


def embedded_store(cache: str | Path | None = None) -> Path:
    """The store of the embedded molecules; made on first use, in less than a minute on two cores.

    Args:
        cache: by default `resources.cache_dir()`.
    """
    out = embedded_path(cache=None if cache is None else Path(cache))
    prepare(embedded(), out, EMBEDDED)
    return out
