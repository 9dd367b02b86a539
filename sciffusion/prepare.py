"""`python -m sciffusion.prepare`: turn files or a named data set into a store to train on."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from sciffusion.errors import InputError
from sciffusion.io.command import command, help_for
from sciffusion.io.config import compose, groups, suggestion

PREPARERS = {
    "molecule": "sciffusion.domains.molecule.prepare.run",
    "protein": "sciffusion.domains.protein.prepare.run",
}
"""The registry: each domain's function of a configuration; imported only when asked for."""

USAGE = """
Turn files into a store to train on. A second call goes on where a stopped one was.

  python -m sciffusion.prepare domain=molecule input=FILE.sdf.gz out=DIR
  python -m sciffusion.prepare domain=molecule input=FILE.smi out=DIR conformers=20 workers=8
  python -m sciffusion.prepare domain=molecule dataset=qm9
  python -m sciffusion.prepare domain=protein input=FILE_OR_FOLDER_OR_TAR out=DIR
  python -m sciffusion.prepare domain=protein dataset=pdb ids=FILE out=DIR
"""


def main(arguments: Sequence[str]) -> None:
    """Prepare.

    Raises:
        InputError: anything from outside that cannot be used.
    """
    named = [a.partition("=")[2] for a in arguments if a.startswith("domain=")]
    if not named:
        raise InputError(f"give the domain: domain={'|'.join(PREPARERS)}")
    if named[-1] not in PREPARERS:
        raise InputError(
            f"domain={named[-1]} has nothing to prepare{suggestion(named[-1], PREPARERS)}"
        )
    rest = [a for a in arguments if not a.startswith("domain=")]
    config = compose("prepare", [*rest, f"prepare={named[-1]}"])
    module, _, function = PREPARERS[named[-1]].rpartition(".")
    getattr(importlib.import_module(module), function)(config)


def cli(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    command(main, help_for(USAGE, groups(), (), "prepare"), arguments)


if __name__ == "__main__":
    cli()
