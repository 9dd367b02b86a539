"""`python -m sciffusion.evaluate`: measure a run against held-out data and write its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sciffusion.io.command import command, help_for
from sciffusion.io.config import groups, read_yaml
from sciffusion.io.run import Run
from sciffusion.sample import configure

USAGE = """
Measure a run: each figure beside its floor (real data against real data), with n and an interval.

  python -m sciffusion.evaluate run=DIR
  python -m sciffusion.evaluate run=DIR n=5000 sampler=heun extractor=inception
"""


def main(arguments: Sequence[str]) -> None:
    """Draw, measure, print, and write metrics.json and report.html into the run.

    Raises:
        InputError: anything from outside that cannot be used.
    """
    config = configure("evaluate", arguments)
    run = Run(Path(config["run"]))
    trained = read_yaml(run.config)

    from sciffusion.domains.base import choose_device, choose_precision, domain_class, load_model
    from sciffusion.io.build import build

    # The data first: where they are gone, nothing need be drawn to say so.
    domain = domain_class(trained["domain"])(data=trained["data"])  # type: ignore[call-arg]
    device = choose_device(config["device"])
    denoiser = load_model(config["run"])[1].to(device)
    denoiser.autocast = choose_precision(config["precision"], device)
    found = domain.evaluate(denoiser, build(config["sampler"]), config, device)
    if found is None:  # not the first of several processes
        return

    from rich.console import Console

    from sciffusion.atomic import atomic_path
    from sciffusion.domains.report import write_report

    console = Console()
    console.width = max(console.width, 140)  # notes need room; narrower terminals wrap
    console.print(found.table.rich())
    with atomic_path(run.path / "metrics.json") as temporary:
        # JSON has no word for an infinite guidance interval.
        settings = json.loads(json.dumps(config), parse_constant=str)
        content = {"settings": settings, **found.table.to_dict()}
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False))
    write_report(run, found)
    print(f"sciffusion: wrote {run.path / 'metrics.json'} and {run.report}")


def cli(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    command(main, help_for("evaluate", USAGE, groups(), ("sampler", "grid"), "measures"), arguments)


if __name__ == "__main__":
    cli()
