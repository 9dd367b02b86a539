"""Where samples go: a folder with a file each, or one file of models; whole files only.

What is there already is kept if it came of the same request (request.json says which), so the same
command goes on where it was stopped. Samples of one file wait in FILE.partial/, a shard each.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sciffusion.atomic import atomic_path
from sciffusion.domains.protein.backbone import Backbone
from sciffusion.domains.protein.layout import DESIGN
from sciffusion.domains.protein.store import read_store, write_shard
from sciffusion.domains.protein.writers import format_of, pdb_text, write_backbone
from sciffusion.errors import InputError

Remarks = Callable[[Sequence[Backbone]], list[str]]
"""Lines on the samples of a file."""
Marks = Callable[[Backbone], np.ndarray | None]
"""B-factors of a sample's residues."""
Notes = Sequence[Mapping[str, Any]]
"""What is known of samples, as JSON."""
_OURS = re.compile(
    r"(design_\d{5,}(_trajectory)?\.(pdb|cif)(\.gz)?|part-\d{5,}\.arrow)"
    r"|(design_|part-)\d{5,}\.json"
    r"|\.(design_|part-)\d{5,}.*\.tmp\.(pdb|cif|gz|arrow|json)"  # half a file, of a killed process
)
KINDS = ("pdb", "cif", "pdb.gz", "cif.gz")
MOST_MODELS = 9999
"""In one PDB file."""


class Designs:
    """The files of a request.

    Args:
        out: a folder, or a file .pdb, .cif, .pdb.gz or .cif.gz.
        format: of the files in a folder: pdb, cif, pdb.gz or cif.gz.
        remarks: lines for the head of a file.
        unknown: how a residue of no known kind is written.
        marks: B-factors of a sample's residues; zero by default.

    Raises:
        InputError: a format that is not known, or not that of `out`.
    """

    def __init__(
        self,
        out: str,
        format: str | None,
        remarks: Remarks,
        unknown: str = DESIGN,
        marks: Marks | None = None,
    ) -> None:
        self.marks = marks
        self.out, self.remarks, self.unknown = Path(out), remarks, unknown
        known = re.search(r"\.(pdb|cif)(\.gz)?$", out, re.IGNORECASE)
        self.one = known is not None
        self.suffix = known[0] if known else f".{format or 'pdb'}"
        if format not in (None, *KINDS):
            raise InputError(f"format={format} is not known: {', '.join(KINDS)}")
        if known and format not in (None, known[0][1:].lower()):
            raise InputError(f"out={out} and format={format}: leave the format out")
        if self.one and self.out.is_dir():
            raise InputError(f"out={out} is a directory: name a file, or a folder without .pdb")
        if not self.one and self.out.is_file():
            raise InputError(f"out={out} is a file: name a folder, or a file .pdb or .cif")
        if not self.one and self.out.suffix and not out.endswith("/") and not self.out.is_dir():
            raise InputError(
                f"out={out} is no .pdb, .cif, .pdb.gz or .cif.gz; end it with / to make a folder"
            )
        self.folder = self.out.with_name(f"{self.out.name}.partial") if self.one else self.out

    def check(self, kinds: Sequence[Backbone], total: int, trajectory: bool = False) -> None:
        """Refuse before any drawing what could not be written.

        Args:
            kinds: of samples to come: their chains, with any coordinates.
            total: how many samples.

        Raises:
            InputError: which does not fit the files.
        """
        text, _ = format_of(f"x{self.suffix}")
        if self.one and len(kinds) > 1:
            raise InputError(
                f"out={self.out} holds models of one length: give out=FOLDER/ for samples of "
                "several"
            )
        if self.one and trajectory and total > 1:
            raise InputError(f"trajectory=true with out={self.out}: give out=FOLDER/, or n=1")
        if self.one and text is pdb_text and total > MOST_MODELS:
            raise InputError(f"out={self.out}: a PDB file holds {MOST_MODELS} models; write .cif")
        longest = max(kinds, key=len)
        text(longest, secondary=np.zeros(len(longest), int), unknown=self.unknown)

    def begin(self, identity: Mapping[str, Any], resume: bool = True) -> str:
        """Go on with what is there if it came of the same request.

        Args:
            identity: everything that a sample depends on, as JSON.
            resume: False removes the samples of an earlier request.

        Returns:
            what a person should know; "" where there is nothing to tell.

        Raises:
            InputError: samples of another request lie there, or files that were not made here.
        """
        file = self.folder / "request.json"
        before: dict[str, Any] | None = None
        with suppress(OSError, ValueError):
            before = json.loads(file.read_text())
        ours = [p for p in self._inside() if _OURS.fullmatch(p.name)]
        done = [p for p in ours if self._is_sample(p.name)]
        for half in ours if not resume else [p for p in ours if p.name[0] == "."]:
            half.unlink(missing_ok=True)  # what a kill left, or what is to be replaced
        if not resume or not done:
            before, done = None, []
        elif before is None:
            raise InputError(
                f"{self.folder} holds {done[0].name} of an unknown request: choose another folder, "
                "or resume=false to replace its designs"
            )
        elif before != identity:
            changed = sorted(k for k in {**before, **identity} if before.get(k) != identity.get(k))
            raise InputError(
                f"{self.folder} holds another request (other {', '.join(changed)}): choose another "
                "out=, or resume=false to replace its designs"
            )
        if before is None:
            with atomic_path(file) as temporary:
                temporary.write_text(json.dumps(identity, indent=1) + "\n")
        return f"going on after {len(done)} that {self.folder} holds" if done else ""

    def _inside(self) -> Iterator[Path]:
        try:
            yield from sorted(self.folder.iterdir()) if self.folder.is_dir() else ()
        except OSError as error:
            raise InputError(f"cannot read {self.folder}: {error.strerror}") from error

    @staticmethod
    def _is_sample(name: str) -> bool:
        return name[0] != "." and "_trajectory" not in name and not name.endswith(".json")

    def _path(self, number: int) -> Path:
        name = f"part-{number:05d}.arrow" if self.one else f"design_{number:05d}{self.suffix}"
        return self.folder / name

    def has(self, number: int) -> bool:
        """Whether this sample is there."""
        return self._path(number).exists()

    def _note(self, number: int) -> Path:
        return self.folder / f"{'part-' if self.one else 'design_'}{number:05d}.json"

    def save(
        self,
        number: int,
        sample: Backbone,
        frames: Sequence[Backbone] = (),
        note: Mapping[str, Any] | None = None,
    ) -> None:
        """A sample, and before it the way to it and what is known of it, so that a sample that is
        there is complete."""
        path = self._path(number)
        if note is not None:
            with atomic_path(self._note(number)) as temporary:
                temporary.write_text(json.dumps(note, indent=1) + "\n")
        if frames:
            whole = self.out if self.one else path
            name = whole.name[: -len(self.suffix)]
            self._write(whole.with_name(f"{name}_trajectory{self.suffix}"), list(frames), [sample])
        if self.one:
            write_shard(path, [sample])
        else:
            self._write(path, [sample], [sample])

    def _write(self, path: Path, models: list[Backbone], told: list[Backbone]) -> None:
        marks = None if self.marks is None else self.marks(told[0])
        write_backbone(
            path, models, b_factor=marks, remarks=self.remarks(told), unknown=self.unknown
        )

    def tabulate(self, name: str, table: Callable[[Notes], str], total: int) -> Path:
        """A table of the samples' notes: NAME.csv in the folder, FILE.NAME.csv beside a file; there
        the notes too, as FILE.NAME.json.
        """
        notes = [json.loads(self._note(k).read_text()) for k in range(total)]
        beside = self.out.with_name(f"{self.out.name[: -len(self.suffix)]}.{name}.csv")
        path = beside if self.one else self.folder / f"{name}.csv"
        files = {path: table(notes)}
        if self.one:
            files[path.with_suffix(".json")] = json.dumps(notes, indent=1) + "\n"
        for file, text in files.items():
            with atomic_path(file) as temporary:
                temporary.write_text(text)
        return path

    def finish(self, total: int) -> None:
        """The one file, put together; nothing to do for a folder."""
        if not self.one:
            return
        models = list(islice(read_store(self.folder), total))
        title = replace(models[0], name=self.out.name[: -len(self.suffix)])
        self._write(self.out, [title, *models[1:]], models)
        shutil.rmtree(self.folder, ignore_errors=True)

    def abandon(self) -> None:
        """Leave nothing behind where no sample was drawn."""
        left = list(self._inside())
        if [p.name for p in left] == ["request.json"]:
            with suppress(OSError):
                left[0].unlink()
                self.folder.rmdir()
