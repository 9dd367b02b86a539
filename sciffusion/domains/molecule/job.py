"""A request from its settings to its files.

Records are served in windows: gathered, drawn together sorted by size, written to the journal,
forgotten. Processes share the windows; the first joins them in order.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rdkit import Chem

import sciffusion
from sciffusion.atomic import atomic_path
from sciffusion.domains.molecule.board import Board
from sciffusion.domains.molecule.generate import Draw, Generator, Tally
from sciffusion.domains.molecule.journal import Journal
from sciffusion.domains.molecule.records import Entry
from sciffusion.domains.molecule.requests import (
    Failure,
    Limits,
    Request,
    Settings,
    entries,
    isomers_of,
    request_of,
    windows,
)
from sciffusion.domains.molecule.writers import Format, format_of, write_alone
from sciffusion.errors import InputError

WINDOW = 256
"""Molecules of a window at most: what a stop may cost, and what processes share by."""


class Job:
    """A request from its configuration to its files.

    Raises:
        InputError: settings that cannot be used.
    """

    def __init__(
        self,
        draw: Draw,
        facts: Mapping[str, Any],
        config: Mapping[str, Any],
        identity: Mapping[str, Any],
        together: int,
        board: Board,
    ) -> None:
        self.config, self.board = config, board
        self.settings = Settings.of(config)
        self.window = max(1, min(together // self.settings.n, WINDOW))
        self.out = Path(config["out"] or "conformers.sdf")
        self.format: Format = format_of(str(config["out"] or self.out))
        self.identity = {**identity, "version": sciffusion.__version__, "window": self.window}
        self.generator = Generator(draw, self.settings, board.say)
        self.limits = Limits(facts, board.say)
        folder = self.format.folder
        self.journal = Journal(
            self.out / ".partial" if folder else self.out.with_name(f"{self.out.name}.partial")
        )
        self.failed = self.out / "failed.txt" if folder else Path(f"{self.out}.failed.txt")
        self.spool = self.out / ".stdin" if folder else Path(f"{self.out}.stdin")
        if (config["smiles"] is None) == (config["input"] is None):
            raise InputError("give smiles=SMILES or input=FILE, one of the two")
        self.path = config["input"]
        if self.out.is_dir() and not self.format.folder:
            raise InputError(f"out={self.out} is a directory: end it with a / to fill it")
        if self.path is not None and os.path.realpath(self.path) == os.path.realpath(self.out):
            raise InputError(f"out={self.out} is the input: name another file")
        if self.path not in (None, "-") and not os.access(self.path, os.R_OK):
            raise InputError(f"input={self.path} cannot be read: check the path")

    def begin(self) -> None:
        """Look at the input, and at what an earlier call has done."""
        if self.path == "-":
            with atomic_path(self.spool) as temporary, temporary.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        source = self.config["smiles"] if self.path is None else _digest(self._source)
        identity = {
            **self.identity,
            **asdict(self.settings),
            "input": source,
            "format": f"{self.format.text.__name__} {self.format.packed} {self.format.folder}",
        }
        said = self.journal.begin(json.loads(json.dumps(identity)), self.config["resume"])
        if said:
            self.board.say(said)

    @property
    def _source(self) -> str:
        return str(self.spool) if self.path == "-" else str(self.path)

    @contextmanager
    def _records(self) -> Iterator[Iterator[Entry]]:
        """The records; standard input is read from where it was kept, by all processes."""
        name = self.out.name.partition(".")[0]
        if self.path != "-":
            yield entries(self.config["smiles"], self.path, name)
            return
        before = sys.stdin
        with self.spool.open() as sys.stdin:
            try:
                yield entries(None, "-", name)
            finally:
                sys.stdin = before

    def work(self, rank: int, world: int) -> int:
        """Serve this process's windows that are not done yet; returns how many there are in all."""
        self.board.start(1 if self.path is None else _lines(self._source))
        count = 0
        with self._records() as records:
            for count, window in enumerate(windows(records, self.window), 1):
                if count % world != rank:
                    continue
                if self.journal.has(count - 1):
                    self.board.advance(len(window) * world, 0)
                    continue
                mols, record = self._serve(window)
                data = b"" if self.format.folder else self.format.data(mols)
                if self.format.folder:
                    for mol in mols:
                        write_alone(self.format, mol, self.out)
                self.journal.save(count - 1, data, record)
                self.board.advance(len(window) * world, record["tally"]["conformers"] * world)
        return count

    def _serve(self, window: Sequence[Entry]) -> tuple[list[Chem.Mol], dict[str, Any]]:
        """(molecules to write, what is noted of a window)."""
        asked: list[list[Request] | Failure] = [self._requests(entry) for entry in window]
        groups = [group for group in asked if isinstance(group, list)]
        answers = iter(self.generator([request for group in groups for request in group]))
        mols, failures, tally = [], [], Tally()
        for group in asked:
            if isinstance(group, Failure):
                failures.append(group)
                continue
            found = [next(answers) for _ in group]
            served = [answer.mol for answer in found if answer.mol.GetNumConformers()]
            mols += served
            problems = [f"{a.request.name}: {a.problem}" for a in found if a.problem]
            if problems:
                failures.append(Failure(group[0].where, "; ".join(problems), bool(served)))
            for answer in found:
                tally.add(answer.tally)
        if self.path is not None:
            for failure in failures:
                self.board.say(str(failure))
        return mols, {
            "records": len(window),
            "failures": [[f.where, f.reason, f.partly] for f in failures],
            "tally": asdict(tally),
        }

    def _requests(self, entry: Entry) -> list[Request] | Failure:
        try:
            if entry.mol is None:
                raise InputError(str(entry.error))
            request = request_of(entry.mol, entry.name, entry.where, self.limits)
            if self.settings.stereo == "enumerate":
                return isomers_of(request, self.settings.seed, self.board.say)
            return [request]
        except InputError as error:
            return Failure(entry.where, " ".join(str(error).split()))

    def abandon(self) -> None:
        """Leave nothing behind that no later call can go on with."""
        self.journal.clear_if_empty()
        if self.path == "-":
            self.spool.unlink(missing_ok=True)

    def finish(self, count: int) -> None:
        """Join the windows and say what came.

        Raises:
            InputError: records that could not be served, or not in full.
        """
        records = self.journal.records(count)
        total = sum(r["records"] for r in records)
        failures = [f for r in records for f in r["failures"]]
        tally = Tally()
        for record in records:
            tally.add(Tally(**record["tally"]))
        failed = sum(not partly for _, _, partly in failures)
        served, short = total - failed, len(failures) - failed
        if served and not self.format.folder:
            self.journal.join(count, self.out)
        self.journal.clear()
        with suppress(OSError):
            if self.format.folder:  # what a kill left
                for half in self.out.glob(".*.tmp.sdf"):
                    half.unlink()
            self.spool.unlink(missing_ok=True)
            self.failed.unlink(missing_ok=True)
        if served:
            print(f"sciffusion: wrote {self.out}: {summary(served, tally)}")
        if not total:
            raise InputError(f"input={self.config['input']} holds no molecules")
        if not failures:
            return
        if self.path is None:
            raise InputError(failures[0][1])
        with atomic_path(self.failed) as temporary:
            temporary.write_text("".join(f"{where}: {reason}\n" for where, reason, _ in failures))
        parts = [(failed, "failed"), (short, "got fewer conformers than asked for")]
        told = " and ".join(f"{count:,} {what}" for count, what in parts if count)
        raise InputError(f"served {served:,} of {total:,}; {told}: see {self.failed}")


def summary(molecules: int, tally: Tally) -> str:
    """What came, for people."""
    text = f"{_count(tally.conformers, 'conformer')} of {_count(molecules, 'molecule')}"
    if tally.stereo:
        share = tally.stereo_right / tally.stereo
        text += f", all with the stereo asked for ({share:.1%} at the first draw)"
    return text


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _digest(path: str) -> str:
    """Of a file, or of the files in a folder."""
    root, digest = Path(path), hashlib.sha256()
    for file in sorted(root.iterdir()) if root.is_dir() else [root]:
        if file.is_file():
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _lines(path: str) -> int | None:
    """How many records to expect, where a line is one."""
    suffixes = (".smi", ".smiles", ".csv", ".tsv", ".txt")
    if not path.lower().endswith(suffixes) or not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return sum(1 for _ in file)
