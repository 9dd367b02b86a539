"""An external command that judges designs, such as ProteinMPNN followed by a folding network.

It is called as `COMMAND FOLDER CSV`: the folder holds `design_000.pdb`, `design_001.pdb`, ..., and
the command writes a CSV with a header and a line a design. Columns of numbers become rows of the
table (their mean, with its interval); others, such as the design's name, are left. A script for
self-consistency would, for each file, draw sequences with ProteinMPNN, fold them, and write
`design,scTM,scRMSD,pLDDT` with the best of each design. It is off by default, since such networks
and their weights come from elsewhere.
"""

from __future__ import annotations

import csv
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sciffusion.domains.protein.backbone import Backbone
from sciffusion.errors import InputError


def judge(command: str, samples: Sequence[Backbone]) -> dict[str, Float[np.ndarray, " n"]]:
    """What a command says of each design, by column; NaN where a cell is empty.

    Args:
        command: a program with arguments, as in a shell; the folder and the CSV come after them.
        samples: the designs.

    Raises:
        InputError: it cannot be run, it fails, or its CSV is not there or cannot be read.
    """
    from sciffusion.domains.protein.writers import write_backbone

    words = shlex.split(command)
    with tempfile.TemporaryDirectory(prefix="sciffusion-designs-") as folder:
        for k, sample in enumerate(samples):
            write_backbone(Path(folder) / f"design_{k:03d}.pdb", sample)
        with tempfile.TemporaryDirectory(prefix="sciffusion-judged-") as beside:
            out = Path(beside) / "judged.csv"
            try:
                ran = subprocess.run([*words, folder, str(out)], capture_output=True, text=True)
            except OSError as error:
                raise InputError(
                    f"external={command}: cannot be run ({error.strerror}); check the program"
                ) from error
            if ran.returncode:
                said = (ran.stderr.strip() or ran.stdout.strip() or "nothing").splitlines()[-1]
                raise InputError(
                    f"external={command}: failed with exit code {ran.returncode}; it said: {said}"
                )
            return _columns(out, command, len(samples))


def _columns(path: Path, command: str, n: int) -> dict[str, Float[np.ndarray, " n"]]:
    """The columns that hold numbers and nothing else."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"external={command}: no CSV that can be read ({error}); it must write the file that "
            "its last argument names"
        ) from error
    if len(rows) != n:
        raise InputError(
            f"external={command}: {len(rows)} lines for {n} designs; write one each under a header"
        )
    found = {}
    for name in (key for key in rows[0] if key):
        try:
            cells = [(row[name] or "").strip() for row in rows]
            found[name] = np.array([float(cell) if cell else np.nan for cell in cells])
        except ValueError:
            continue
    return found
