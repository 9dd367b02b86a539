"""`python -m sciffusion.sample`: draw samples from a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sciffusion.errors import InputError
from sciffusion.io.command import command, help_for
from sciffusion.io.config import change, compose, groups
from sciffusion.io.run import Run, load_shared

USAGE = """
Draw samples from a run; sample i of a seed is the same in any batch and on any number of processes.

  python -m sciffusion.sample run=DIR n=100
  python -m sciffusion.sample run=DIR n=1000 label=3 sampler=ddim sampler.steps=20 seed=0 out=DIR
  torchrun --nproc-per-node 4 -m sciffusion.sample run=DIR n=50000 out=DIR
"""


def configure(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The configuration of `sample` or `evaluate`, with the run's own sampler where none is named.

    Raises:
        InputError: unknown settings, or no run.
    """
    named = any(a.startswith("sampler=") for a in arguments)
    own = [a for a in arguments if a.startswith("sampler.") and not named]
    rest = [a for a in arguments if a not in own]
    if not any(a.startswith("run=") for a in rest):
        raise InputError("give the directory of a trained run: run=DIR")
    config = compose(name, rest)
    stored = load_shared(config["run"])
    if config.get("sampler") is None:
        config["sampler"] = change({"sampler": stored["sampler"]}, own, "the run")["sampler"]
    if config.get("grid") is not None:
        config["sampler"]["grid"] = config["grid"]
    return config


def draw_from(config: dict[str, Any]) -> tuple[Any, Any, Any, dict[str, Any]]:
    """(samples, domain, denoiser, the run's config) of a configuration of `configure`."""
    from rich.console import Console
    from rich.progress import Progress

    from sciffusion.core.guidance import Clip, DynamicThreshold
    from sciffusion.domains.base import choose_device, load_model
    from sciffusion.domains.sampling import draw, world_size
    from sciffusion.io.build import build

    domain, denoiser, stored = load_model(config["run"])
    device = choose_device(config["device"])
    denoiser = denoiser.to(device)
    wrappers = {None: lambda d: d, "clip": Clip, "dynamic": DynamicThreshold}
    if config["clip"] not in wrappers:
        raise InputError(f"clip={config['clip']} is not known: clip, dynamic or null")
    guidance = config["guidance"]
    rank, _ = world_size()
    console = Console(stderr=True)
    silent = rank > 0 or not console.is_terminal
    with Progress(console=console, disable=silent, transient=True) as bar:
        task = bar.add_task("sampling", total=config["n"])
        samples = draw(
            domain,
            wrappers[config["clip"]](denoiser),
            build(config["sampler"]),
            config["n"],
            config["seed"],
            {"label": config.get("label")},
            guidance["scale"],
            (guidance["low"], guidance["high"]),
            config["batch"],
            device,
            lambda k: bar.advance(task, k),
        )
    return samples, domain, denoiser, stored


def main(arguments: Sequence[str]) -> None:
    """Draw and write.

    Raises:
        InputError: anything from outside that cannot be used.
    """
    config = configure("sample", arguments)
    source = Path(config["run"])
    home = source.parent if source.suffix == ".safetensors" else source
    out = Run(Path(config["out"] or home / "samples")).make()
    samples, domain, *_ = draw_from(config)

    from sciffusion.domains.sampling import world_size

    if world_size()[0] == 0:
        written = domain.write(samples, out.path)
        print("sciffusion: wrote " + " and ".join(str(p) for p in written))


def cli(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    command(main, help_for("sample", USAGE, groups(), ("sampler", "grid")), arguments)


if __name__ == "__main__":
    cli()
