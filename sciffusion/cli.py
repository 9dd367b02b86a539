"""`sciffusion prepare|train|distill|ema|sample|evaluate|likelihood|export`: the entry points under
one name."""

from __future__ import annotations

import importlib
import sys

COMMANDS = (
    "prepare", "train", "distill", "ema", "sample", "evaluate", "likelihood", "export"
)  # fmt: skip


def main() -> None:
    """Hand the rest of the command line to the command."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        asked = sys.argv[1] if len(sys.argv) > 1 else "--help"
        print(f"usage: sciffusion {'|'.join(COMMANDS)} [name=value ...]   (--help after a command)")
        sys.exit(0 if asked in ("-h", "--help") else 2)
    # sys.argv stays as it is: Lightning starts the other processes of a training from it.
    importlib.import_module(f"sciffusion.{sys.argv[1]}").cli(sys.argv[2:])


if __name__ == "__main__":
    main()
