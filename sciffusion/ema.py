"""`python -m sciffusion.ema`: choose the length of a run's average after its training."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciffusion.errors import InputError
from sciffusion.evaluate import run_of, trained_on
from sciffusion.io.command import command, help_for
from sciffusion.io.config import compose, groups, suggestion
from sciffusion.io.run import Run, load_shared, load_tensors, save_weights
from sciffusion.sample import configure

if TYPE_CHECKING:
    from sciffusion.domains.sweep import Measure
    from sciffusion.io.snapshots import Snapshot

USAGE = """
Post-hoc EMA: make the average of any length of a run that kept snapshots, without training again.
Lengths are relative standard deviations of the average's profile (sigma_rel), up to 0.288.

  python -m sciffusion.train ... trainer.snapshots.number=32 run=DIR
  python -m sciffusion.ema run=DIR lengths=0.02:0.25 points=8
  python -m sciffusion.ema run=DIR lengths=0.03,0.1,0.2 seeds=1,2 report_seeds=3,4,5,6 n=2000
  python -m sciffusion.ema run=DIR metric="COV-R mean" out=BEST.safetensors
  python -m sciffusion.ema run=DIR length=0.1 [step=2000] out=FILE.safetensors

The length that does best on seeds= is measured on report_seeds=, beside the run's own average.
RUN/ema gets report.html, curve.png and ema.json; the same command goes on where it was stopped.
Other settings are those of evaluate (n, sampler, data, device ...).
"""
OWN = (
    "run", "out", "folder", "length", "lengths", "points", "step", "metric", "seeds",
    "report_seeds",
)  # fmt: skip


def numbers(text: Any, name: str, kind: type = float) -> list[Any]:
    """The numbers of a setting such as "0.05,0.1".

    Raises:
        InputError: a word that is none.
    """
    try:
        return [kind(word) for word in str(text).strip("[]").split(",")]
    except ValueError as error:
        what = "whole numbers, as 1,2,3" if kind is int else "numbers, as 0.05,0.1 or 0.02:0.25"
        raise InputError(f"{name}={text}: give {what}") from error


def lengths_of(text: str, points: int) -> list[float]:
    """Lengths of a list "0.05,0.1", or `points` of a range "0.02:0.25", evenly in the logarithm.

    Raises:
        InputError: no numbers, or a range that is none.
    """
    low, colon, high = text.partition(":")
    if not colon:
        return sorted(set(numbers(text, "lengths")))
    first, last = numbers(low, "lengths")[0], numbers(high, "lengths")[0]
    if not 0 < first < last:
        raise InputError(f"lengths={text}: a range goes from a number above 0 to a larger one")
    if points < 2:
        raise InputError(f"points={points} must be at least 2")
    steps = (k / (points - 1) for k in range(points))
    return [float(f"{first * (last / first) ** share:.3g}") for share in steps]


def target(out: str, run: Run) -> tuple[Path, str]:
    """(folder, file) of weights that are to be written.

    Raises:
        InputError: they would replace the run's own, or lie beside another network's config.json.
    """
    path = Path(out)
    if path.suffix != ".safetensors":
        path = path / "model.safetensors"
    if path.resolve() == run.weights.resolve():
        raise InputError(f"out={out} would replace the run's own weights: name another file")
    beside = path.with_name("config.json")
    if beside.exists() and beside.read_bytes() != (run.path / "config.json").read_bytes():
        raise InputError(f"{path.parent} holds another network's config.json: choose another place")
    return path.parent, path.name


def write(config: dict[str, Any], run: Run, snapshots: Sequence[Snapshot], length: float) -> None:
    """The weights of one length, with the config.json that builds their network."""
    from sciffusion.io.snapshots import make_average

    folder, name = target(config["out"], run)
    made = make_average(snapshots, length, config["step"])
    shared = {k: v for k, v in load_shared(run.path).items() if k != "format"}
    save_weights(folder, made.tensors, shared, name)
    print(
        f"sciffusion: wrote {folder / name}: length {length:g} at step {made.step}, expected error "
        f"{made.error:.1e}"
    )


def measure_of(
    run: Run, snapshots: Sequence[Snapshot], settings: dict[str, Any], config: dict[str, Any],
    data: Sequence[str], file: Path,
) -> Measure:  # fmt: skip
    """What an evaluation by the run's domain says of a length; what was found is kept in `file`."""
    from sciffusion.atomic import atomic_path
    from sciffusion.domains.base import choose_device, choose_precision, domain_class, load_model
    from sciffusion.io.build import build
    from sciffusion.io.run import load_into
    from sciffusion.io.snapshots import make_average
    from sciffusion.metrics.table import Row

    trained = trained_on(run.path, data)
    domain = domain_class(trained["domain"])(data=trained["data"])  # type: ignore[call-arg]
    metric = config["metric"] or domain.headline
    device = choose_device(settings["device"])
    denoiser = load_model(run.path)[1].to(device)
    denoiser.autocast = choose_precision(settings["precision"], device)
    own = load_tensors(run.path)
    asked = {k: v for k, v in settings.items() if k not in ("seed", "out", "device", "run")}
    identity = json.loads(
        json.dumps([asked, list(data), metric, snapshots[0].trajectory, config["step"],
                    [s.step for s in snapshots]]), parse_constant=str,
    )  # fmt: skip
    found: dict[str, Any] = {}
    with suppress(FileNotFoundError, ValueError):  # none, or no JSON: measured anew
        before = json.loads(file.read_text())
        found = before["found"] if before["identity"] == identity else {}
    loaded: list[float | None] = []

    def measure(length: float | None, seed: int) -> Row:
        name = "the run's own average" if length is None else f"length {length:g}"
        key = f"{name}, seed {seed}"
        if key not in found:
            if loaded != [length]:
                made = own if length is None else make_average(snapshots, length, config["step"])
                tensors = made if isinstance(made, dict) else made.tensors
                load_into(denoiser.network, tensors, str(run.path))
                loaded[:] = [length]
            table = domain.evaluate(
                denoiser, build(settings["sampler"]), settings | {"seed": seed}, device
            ).table  # type: ignore[union-attr]
            names = [row.name for row in table.rows]
            if metric not in names:
                raise InputError(f"metric={metric!r} was not measured{suggestion(metric, names)}")
            found[key] = asdict(table[metric])
            with atomic_path(file) as temporary:
                temporary.write_text(json.dumps({"identity": identity, "found": found}, indent=1))
        row = Row(**found[key])
        print(f"sciffusion: {key}: {metric} {row.value:.4g}", flush=True)
        return row

    return measure


def main(arguments: Sequence[str]) -> None:
    """Make, measure, choose, report.

    Raises:
        InputError: anything from outside that cannot be used.
    """
    names = [a.partition("=")[0] for a in arguments]
    own = [a for a, name in zip(arguments, names, strict=True) if name in OWN]
    config = compose("ema", own)
    if config["run"] is None:
        raise InputError("give the directory of a trained run: run=DIR")
    data = [a for a in arguments if a.startswith(("data=", "data."))]
    rest = [a.removeprefix("measures.") for a in arguments if a not in own and a not in data]
    if "seed" in (a.partition("=")[0] for a in rest):
        raise InputError("seed=: give seeds= to choose by and report_seeds= to report on")
    run = run_of(config["run"])
    shared = load_shared(run.path)
    if config["out"] is not None:
        target(config["out"], run)

    from sciffusion.io.snapshots import check_length, snapshots_of

    snapshots = snapshots_of(run)
    if config["length"] is not None:
        if config["out"] is None:
            raise InputError("length= writes one average: say where, with out=FILE.safetensors")
        if rest or data:
            raise InputError(f"length= measures nothing: leave out {[*rest, *data][0]}")
        asked = numbers(config["length"], "length")
        if len(asked) > 1:
            raise InputError(f"length={config['length']}: give one; lengths= compares several")
        write(config, run, snapshots, asked[0])
        return
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError("ema runs in one process: start it without torchrun")

    lengths = lengths_of(config["lengths"], config["points"])
    errors = [check_length(snapshots, length, config["step"]) for length in lengths]
    choose, report = (numbers(config[k], k, int) for k in ("seeds", "report_seeds"))

    from sciffusion.domains.base import domain_class
    from sciffusion.domains.sweep import sweep
    from sciffusion.domains.sweep_report import write_sweep

    quick = [f"{k}={json.dumps(v)}" for k, v in domain_class(shared["domain"]).quick.items()]
    settings = configure("evaluate", [f"run={run.path}", *quick, *rest])
    folder = Path(config["folder"] or run.path / "ema")
    Run(folder).make()
    measure = measure_of(run, snapshots, settings, config, data, folder / "measured.json")
    found = sweep(measure, lengths, choose, report)
    title = f"{run.path.resolve().name}: length of the average"
    write_sweep(found, errors, title, folder, settings)
    if config["out"] is not None:
        write(config, run, snapshots, found.length)


def cli(arguments: Sequence[str] | None = None) -> None:
    """The entry point."""
    command(main, help_for(USAGE, groups(), ("sampler", "grid"), "measures"), arguments)


if __name__ == "__main__":
    cli()
