"""`python -m sciffusion.export`: a trained run's weights in half precision, to share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sciffusion.errors import InputError
from sciffusion.io.command import command, help_for
from sciffusion.io.config import compose
from sciffusion.io.run import halved, load_shared, load_tensors, save_weights

USAGE = """
Write a run's averaged weights in half precision, with the config that builds their network:
model.safetensors and config.json, which sample, evaluate and init= take like a run.

  python -m sciffusion.export run=DIR out=FOLDER
"""


def main(arguments: Sequence[str]) -> None:
    """Read, round, write.

    Raises:
        InputError: no run, no place to write, or weights too large for half precision.
    """
    config = compose("export", arguments)
    for name in ("run", "out"):
        if not config[name]:
            raise InputError(f"give {name}=: python -m sciffusion.export run=DIR out=FOLDER")
    shared, tensors = load_shared(config["run"]), load_tensors(config["run"])
    half = halved(tensors, str(config["run"]))
    folder = Path(config["out"])
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder, half, {k: v for k, v in shared.items() if k != "format"})
    size = (folder / "model.safetensors").stat().st_size
    print(f"sciffusion: wrote {folder / 'model.safetensors'} ({size / 1e6:.1f} MB)")


def cli(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    command(main, help_for(USAGE, {}, ()), arguments)


if __name__ == "__main__":
    cli()
