"""`python -m sciffusion.train`: train, resume or fine-tune."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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
)
from sciffusion.io.run import Run

USAGE = """
Train a model; a run is a directory, and training it again goes on where it stopped.

  python -m sciffusion.train domain=image                        digits, ready in minutes on a CPU
  python -m sciffusion.train domain=image data=cifar10 data.root=DIR
  python -m sciffusion.train experiment=cifar10 data.root=DIR    the whole recipe, on a GPU
  python -m sciffusion.train domain=image data=folder data.root=PICTURES data.size=64
  python -m sciffusion.train run=DIR                             resume
  python -m sciffusion.train init=RUN_OR_WEIGHTS data=...        fine-tune
  python -m sciffusion.train trainer=ddp run=DIR                 all GPUs of this machine
"""
CHOICES = (
    "experiment", "domain", "data", "model", "space", "schedule", "parameterization", "loss",
    "optimizer", "rate", "sampler", "trainer", "logger",
)  # fmt: skip
FREE = ("run", "trainer", "logger")
"""What a resumed run may choose anew: it says how to train, not what."""


def _fresh(config: dict[str, Any]) -> Path:
    """A new directory under runs/; processes that Lightning starts take over the first one's."""
    if int(os.environ.get("LOCAL_RANK", 0)) > 0 and "SCIFFUSION_RUN" in os.environ:
        return Path(os.environ["SCIFFUSION_RUN"])
    if "TORCHELASTIC_RUN_ID" in os.environ or config["trainer"]["nodes"] > 1:
        raise InputError("with several machines or torchrun name the run's directory: run=DIR")
    name = f"{config['domain']}-{config['data'].get('name') or 'data'}"
    number = 1
    while (path := Path("runs") / f"{name}-{number}").exists():
        number += 1
    os.environ["SCIFFUSION_RUN"] = str(path)
    return path


def difference(ours: Any, theirs: Any, name: str = "") -> str | None:
    """The first setting in which two configurations differ."""
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return None if ours == theirs else name
    for key in [*ours, *(k for k in theirs if k not in ours)]:
        if found := difference(ours.get(key), theirs.get(key), f"{name}.{key}".lstrip(".")):
            return found
    return None


def keep_spacing(config: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Snapshots of a run that goes on lie as far apart as they did, unless it is told otherwise."""
    new, old = (c["trainer"].get("snapshots") or {} for c in (config, stored))
    if new.get("every") is None and old.get("every"):
        new["every"] = old["every"]


def configure(arguments: Sequence[str]) -> tuple[dict[str, Any], Run]:
    """(configuration, run) of a command line: a new run, or an old one to go on with.

    An old run goes on with its own configuration, with single values changed where they are given.
    The command that began it resumes it too.

    Raises:
        InputError: unknown settings, or choices that would make an old run another one.
    """
    named = [a.partition("=")[2] for a in arguments if a.startswith("run=")]
    old = Run(Path(named[-1])) if named and named[-1] not in ("", "null") else None
    stored = read_yaml(old.config) if old is not None and old.config.exists() else None
    if stored is not None:
        rest = [a for a in arguments if not a.startswith("run=")]
        choices, values = split_overrides([a for a in rest if a != f"domain={stored['domain']}"])
        if not choices:
            return change(stored, values, str(old.config)) | {"run": str(old.path)}, old
    config = compose("train", arguments)
    run = old or Run(_fresh(config))
    config["run"] = str(run.path)
    if stored is not None and run.checkpoint.exists():
        what = [{k: v for k, v in c.items() if k not in FREE} for c in (config, stored)]
        if name := difference(*what):
            raise InputError(
                f"{' '.join(choices)}: {name} would differ from that of the run {run.path}; resume "
                f"it with run={run.path} alone, or start another with run=NEW init={run.path}"
            )
        keep_spacing(config, stored)
    return config, run


def main(arguments: Sequence[str]) -> None:
    """Train and write a report.

    Raises:
        InputError: anything from outside that cannot be used.
    """
    config, run = configure(arguments)

    from sciffusion.domains.base import domain_class
    from sciffusion.domains.report import write_report
    from sciffusion.training.fit import first_process, fit, make_module, say

    domain = domain_class(config["domain"])(data=config["data"])  # type: ignore[call-arg]
    module = make_module(domain, config)
    stopped = fit(module, config, run)
    if stopped is None and first_process() and run.weights.exists():
        picture = write_report(run)
        say(f"{picture} and {run.report} are written")


def cli(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    command(main, help_for(USAGE, groups(), CHOICES), arguments)


if __name__ == "__main__":
    cli()
