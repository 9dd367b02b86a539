"""`python -m sciffusion.export`: a trained run's weights in half precision, to share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sciffusion.errors import InputError
from sciffusion.io.command import command, help_for
from sciffusion.io.config import groups
from sciffusion.io.run import halved, load_shared, load_tensors, save_weights
from sciffusion.sample import configure

USAGE = """
Write a run's averaged weights in half precision, with the config that builds their network:
model.safetensors and config.json, which sample, evaluate and init= take like a run.

  python -m sciffusion.export run=DIR out=FOLDER
  python -m sciffusion.export run=DIR out=FOLDER sampler=heun sampler.steps=40   what they draw with
"""


def main(arguments: Sequence[str]) -> None:
    """Read, round, write.

    Raises:
        InputError: no run, no place to write, or weights too large for half precision.
    """
    given = {k: v for k, _, v in (a.partition("=") for a in arguments)}
    for name in ("run", "out"):
        if not given.get(name):
            raise InputError(f"give {name}=: python -m sciffusion.export run=DIR out=FOLDER")
    config = configure("export", arguments)
    shared, tensors = load_shared(config["run"]), load_tensors(config["run"])
    half = halved(tensors, str(config["run"]))
    folder = Path(config["out"])
    folder.mkdir(parents=True, exist_ok=True)
    shared = {k: v for k, v in shared.items() if k != "format"} | {"sampler": config["sampler"]}
    save_weights(folder, half, shared)
    size = (folder / "model.safetensors").stat().st_size
    print(f"sciffusion: wrote {folder / 'model.safetensors'} ({size / 1e6:.1f} MB)")


def cli(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    command(main, help_for(USAGE, groups(), ("sampler", "grid")), arguments)


if __name__ == "__main__":
    cli()
