"""`python -m sciffusion.train`: train, resume or fine-tune."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sciffusion.errors import InputError
from sciffusion.io.command import command, help_for
from sciffusion.io.config import (
    change,
    compose,
    groups,
    read_yaml,
    split_overrides,
    to_yaml,
)
from sciffusion.io.run import Run

USAGE = """
Train a model; a run is a directory, and training it again goes on where it stopped.

  python -m sciffusion.train domain=image                        digits, ready in minutes on a CPU
  python -m sciffusion.train domain=image data=cifar10 data.root=DIR
  python -m sciffusion.train experiment=cifar10 data.root=DIR    the whole recipe, for a GPU
  python -m sciffusion.train domain=image data=folder data.root=PICTURES data.size=64
  python -m sciffusion.train run=DIR                             resume
  python -m sciffusion.train init=RUN_OR_WEIGHTS data=...        fine-tune
  python -m sciffusion.train trainer=ddp run=DIR                 all GPUs of this machine
"""
CHOICES = (
    "experiment", "domain", "data", "model", "schedule", "parameterization", "loss", "optimizer", "rate",
    "sampler", "trainer", "logger",
)  # fmt: skip


def _fresh(config: dict[str, Any]) -> Path:
    """A new directory under runs/; all processes of one training agree on it."""
    if "SCIFFUSION_RUN" in os.environ:
        return Path(os.environ["SCIFFUSION_RUN"])
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise InputError("under torchrun name the run's directory: run=DIR")
    name = f"{config['domain']}-{config['data'].get('name') or 'data'}"
    number = 1
    while (path := Path("runs") / f"{name}-{number}").exists():
        number += 1
    os.environ["SCIFFUSION_RUN"] = str(path)
    return path


def configure(arguments: Sequence[str]) -> tuple[dict[str, Any], Run]:
    """(configuration, run) of a command line: a new run, or an old one to go on with.

    Raises:
        InputError: unknown settings, or choices that would make an old run another one.
    """
    named = [a.partition("=")[2] for a in arguments if a.startswith("run=")]
    old = Run(Path(named[-1])) if named and named[-1] not in ("", "null") else None
    if old is not None and old.config.exists():
        choices, values = split_overrides([a for a in arguments if not a.startswith("run=")])
        config = read_yaml(old.config)
        same = [c for c in choices if c == f"domain={config['domain']}"]
        if len(choices) > len(same) and not _first_start(old):
            wrong = next(c for c in choices if c not in same)
            raise InputError(
                f"{wrong}: the run {old.path} exists with choices of its own; resume it without, or "
                "start another with run=NEW init=" + str(old.path)
            )
        if not _first_start(old):
            return change(config, values, str(old.config)), old
    config = compose("train", arguments)
    run = old or Run(_fresh(config))
    config["run"] = str(run.path)
    return config, run


def _first_start(run: Run) -> bool:
    """The run was begun but never saved, or is being begun by the first of our processes."""
    return not run.checkpoint.exists()


def main(arguments: Sequence[str]) -> None:
    """Train and write a report.

    Raises:
        InputError: anything from outside that cannot be used.
    """
    config, run = configure(arguments)

    from sciffusion.atomic import atomic_path
    from sciffusion.domains.base import domain_class
    from sciffusion.domains.report import write_report
    from sciffusion.training.fit import fit, make_module, say

    domain = domain_class(config["domain"])(data=config["data"])  # type: ignore[call-arg]
    module = make_module(domain, config)
    run.make()
    first = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))) == 0
    if first:
        with atomic_path(run.config) as temporary:
            temporary.write_text(to_yaml(config))
        say(f"run {run.path}")
    stopped = fit(module, config, run)
    if stopped is None and first and run.weights.exists():
        picture = write_report(run)
        say(f"{picture} and {run.report} are written")


def cli(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    command(main, help_for("train", USAGE, groups(), CHOICES), arguments)


if __name__ == "__main__":
    cli()
