"""`python -m sciffusion.evaluate`: measure a run against held-out data and write its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sciffusion.errors import InputError
from sciffusion.io.command import command, help_for
from sciffusion.io.config import compose, groups, read_yaml
from sciffusion.io.run import Run, load_shared
from sciffusion.sample import configure

USAGE = """
Measure a run: each figure beside its floor (real data against real data), with n and an interval.

  python -m sciffusion.evaluate run=DIR
  python -m sciffusion.evaluate run=DIR n=5000 sampler=heun extractor=inception
  python -m sciffusion.evaluate domain=molecule data=store data.root=STORE out=DIR
"""


def run_of(path: str | Path) -> Run:
    """The run that a path means: its directory, or weights that lie in it."""
    path = Path(path)
    return Run(path.parent if path.suffix == ".safetensors" else path)


def trained_on(path: str | Path, data: Sequence[str]) -> dict[str, Any]:
    """The training configuration that names the data: as given, else the run's own.

    Args:
        path: of a run, or of weights.
        data: arguments that begin with "data".

    Raises:
        InputError: neither is there.
    """
    run = run_of(path)
    if data:
        return compose("train", [f"domain={load_shared(path)['domain']}", *data])
    if not run.config.exists():
        raise InputError(f"{path} does not say what it was trained on: give data=, as to train")
    return read_yaml(run.config)


def main(arguments: Sequence[str]) -> None:
    """Draw, measure, print, and write metrics.json and report.html.

    Raises:
        InputError: anything from outside that cannot be used.
    """
    data = [a for a in arguments if a.startswith(("data=", "data."))]
    config = configure("evaluate", [a for a in arguments if a not in data])
    run, trained = run_of(config["run"]), trained_on(config["run"], data)
    if config["out"] is None and not run.config.exists():
        raise InputError("give out=DIR: these are weights to share, not a run to write into")
    to = run if config["out"] is None else Run(Path(config["out"])).make()

    from sciffusion.domains.base import choose_device, choose_precision, domain_class, load_model
    from sciffusion.domains.sampling import autoguided
    from sciffusion.io.build import build

    # The data first: where they are gone, nothing need be drawn to say so.
    domain = domain_class(trained["domain"])(data=trained["data"])  # type: ignore[call-arg]
    device = choose_device(config["device"])
    denoiser = load_model(config["run"])[1].to(device)
    denoiser.autocast = choose_precision(config["precision"], device)
    guided = autoguided(domain, denoiser, config, device)
    found = domain.evaluate(guided, build(config["sampler"]), config, device)
    if found is None:  # not the first of several processes
        return

    from rich.console import Console

    from sciffusion.atomic import atomic_path
    from sciffusion.domains.report import write_report

    console = Console()
    console.width = max(console.width, 140)  # notes need room; narrower terminals wrap
    console.print(found.table.rich())
    with atomic_path(to.path / "metrics.json") as temporary:
        # JSON has no word for an infinite guidance interval.
        settings = json.loads(json.dumps(config), parse_constant=str)
        content = {"settings": settings, **found.table.to_dict()}
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False))
    write_report(run, found, to)
    print(f"sciffusion: wrote {to.path / 'metrics.json'} and {to.report}")


def cli(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    command(main, help_for(USAGE, groups(), ("sampler", "grid"), "measures"), arguments)


if __name__ == "__main__":
    cli()
