"""`python -m sciffusion.sample`: draw samples from a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sciffusion import resources
from sciffusion.errors import InputError
from sciffusion.io.command import command, help_for
from sciffusion.io.config import change, compose, filled, groups, suggestion
from sciffusion.io.run import load_shared

USAGE = """
Draw samples from a run; sample i of a seed is the same in any batch and on any number of processes.

  python -m sciffusion.sample run=DIR n=100
  python -m sciffusion.sample run=DIR n=1000 label=3 sampler=ddim sampler.steps=20 seed=0 out=DIR
  python -m sciffusion.sample run=DIR guidance.by=EARLIER guidance.by_scale=2
  python -m sciffusion.sample run=DIR from=FILE.png mask=MASK.png n=16 out=DIR
  python -m sciffusion.sample run=DIR from=SMALL.png upscale=4 n=16 out=DIR
  python -m sciffusion.sample domain=molecule smiles="CC(=O)Nc1ccc(O)cc1" n=20 out=FILE.sdf
  python -m sciffusion.sample run=DIR input=FILE.smi n=20 relax=mmff out=FILE.sdf
  python -m sciffusion.sample domain=protein length=60-128 n=10 out=designs/
  python -m sciffusion.sample run=DIR ss=HHHHHHHHHHLLLEEEEELLEEEEE guidance.scale=2 out=FILE.pdb
  python -m sciffusion.sample run=DIR from=FILE.pdb noise=5 n=10 out=variants/
  python -m sciffusion.sample domain=protein motif=FILE.pdb contigs="10-40/A163-181/10-40" n=10 \\
      out=DIR
  torchrun --nproc-per-node 4 -m sciffusion.sample run=DIR n=50000 out=DIR
"""


def source(arguments: Sequence[str]) -> str:
    """The run that the arguments name, or the packaged weights of their domain.

    Raises:
        InputError: neither is named, the run is of another domain, or the domain has no packaged
            weights.
    """
    named = {k: v for k, _, v in (a.partition("=") for a in arguments)}
    if run := named.get("run"):
        domain = load_shared(run)["domain"]
        if named.get("domain", domain) != domain:
            raise InputError(f"{run} is of domain={domain}: it has no domain={named['domain']}")
        return run
    if not (domain := named.get("domain")):
        raise InputError("give the directory of a trained run, run=DIR, or domain=molecule|protein")
    if domain not in groups()["domain"]:
        raise InputError(f"unknown domain {domain!r}{suggestion(domain, groups()['domain'])}")
    return str(resources.weights(domain))


def configure(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The configuration of `sample`, `evaluate` or `export`, with the run's own sampler where none
    is named.

    Raises:
        InputError: unknown settings, or no run.
    """
    named = any(a.startswith("sampler=") for a in arguments)
    own = [a for a in arguments if a.startswith("sampler.") and not named]
    run = source(arguments)
    stored = load_shared(run)
    kind = {"sample": "request", "evaluate": "measures"}.get(name)
    rest = [a for a in arguments if a not in own and not a.startswith("run=")]
    if kind:
        rest = [*(a for a in rest if not a.startswith("domain=")), f"{kind}={stored['domain']}"]
    config = compose(name, [*rest, f"run={run}"])
    if config.get("sampler") is None:
        config["sampler"] = change({"sampler": stored["sampler"]}, own, "the run")["sampler"]
    if config.get("grid") is not None:
        config["sampler"]["grid"] = config["grid"]
    config["sampler"] = filled(config["sampler"], sigma_data=stored["facts"].get("sigma_data"))
    return config


def main(arguments: Sequence[str]) -> None:
    """Draw and write.

    Raises:
        InputError: anything from outside that cannot be used.
    """
    config = configure("sample", arguments)

    from sciffusion.domains.base import choose_device, choose_precision, load_model
    from sciffusion.domains.sampling import autoguided
    from sciffusion.io.build import build

    domain, denoiser, _ = load_model(config["run"])
    device = choose_device(config["device"])
    denoiser.autocast = choose_precision(config["precision"], device)
    guided = autoguided(domain, denoiser.to(device), config, device)
    domain.serve(guided, build(config["sampler"]), config, device)


def cli(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    command(main, help_for(USAGE, groups(), ("sampler", "grid"), "request"), arguments)


if __name__ == "__main__":
    cli()
