"""`python -m sciffusion.likelihood`: the log-likelihood of held-out data under a trained run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sciffusion.errors import InputError
from sciffusion.io.command import command, help_for
from sciffusion.io.config import compose, read_yaml
from sciffusion.io.run import Run, load_shared
from sciffusion.sample import source

USAGE = """
Log-likelihood by the probability-flow ODE: bits per dimension of images, nats of molecules and
backbones, with respect to their 3 (N - 1) degrees of freedom. Backbones are told nothing.

  python -m sciffusion.likelihood run=DIR n=100
  python -m sciffusion.likelihood run=DIR divergence=exact out=FILE.json
  python -m sciffusion.likelihood run=DIR divergence=hutchinson probes=8 tolerance=1e-4
  python -m sciffusion.likelihood domain=molecule data=store data.root=STORE out=FILE.json
"""


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write a JSON file.

    Raises:
        InputError: anything from outside that cannot be used.
    """
    data = [a for a in arguments if a.startswith(("data=", "data."))]
    where = source(arguments)
    rest = [a for a in arguments if a not in data and a.partition("=")[0] not in ("run", "domain")]
    config = compose("likelihood", [*rest, f"run={where}"])
    path = Path(where)
    run = Run(path.parent if path.suffix == ".safetensors" else path)
    shared = load_shared(path)
    if data:
        trained = compose("train", [f"domain={shared['domain']}", *data])
    elif not run.config.exists():
        raise InputError(f"{path} does not say what it was trained on: give data=, as to train")
    else:
        trained = read_yaml(run.config)
    if config["out"] is None and not run.config.exists():
        raise InputError("give out=FILE.json: these are weights to share, not a run to write into")
    out = Path(config["out"] or run.path / "likelihood.json")
    if out.is_dir():
        out = out / "likelihood.json"

    from sciffusion.domains.base import choose_device, domain_class, load_model
    from sciffusion.domains.likelihood import checked, measure, table

    checked(config)
    device = choose_device(config["device"])
    domain = domain_class(trained["domain"])(data=trained["data"])  # type: ignore[call-arg]
    denoiser = load_model(path)[1].to(device)
    found = measure(domain, denoiser, config, device)

    from rich.console import Console

    from sciffusion.atomic import atomic_path

    shown = table(domain, found, config)
    console = Console()
    console.width = max(console.width, 140)  # notes need room; narrower terminals wrap
    console.print(shown.rich())
    Run(out.parent).make()
    with atomic_path(out) as temporary:
        content = {"settings": config, **shown.to_dict(), "records": found.to_dict()}
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False))
    print(f"sciffusion: wrote {out}")


def cli(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    from sciffusion import resources

    text = resources.path("configs", "likelihood.yaml").read_text().splitlines()
    settings = "\n".join(f"  {line}" for line in text if not line.startswith("#"))
    command(main, help_for(f"{USAGE}\nSettings:\n{settings}", {}, ()), arguments)


if __name__ == "__main__":
    cli()
