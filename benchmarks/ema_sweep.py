"""Post-hoc EMA: how exactly averages come back, and what their length is worth.

    python benchmarks/ema_sweep.py [--quick] [--runs RUN "RUN n=1000 points=6" ...]

Averages of many lengths are tracked directly, on a random walk and on a training of the digits, and
beside them two (0.05 and 0.10) of which snapshots are kept. From few or many snapshots, in full or
half precision, each length is made again; the error is |made - tracked| / |tracked| over all
weights, at the last step. With --runs, trained runs that kept snapshots, of any domain, also have
their length chosen by `python -m sciffusion.ema`, each with its own settings.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, bar, markdown, write_result
from torch import Tensor, nn
from training import trained

from sciffusion import ema, train
from sciffusion.core.ema import Average, PowerEMA
from sciffusion.core.profiles import combine, gamma_of_length
from sciffusion.domains.base import domain_class
from sciffusion.io.command import command
from sciffusion.io.config import compose
from sciffusion.io.snapshots import ROUNDING

TRACKED = (0.05, 0.10)
LENGTHS = (0.02, 0.03, 0.04, 0.07, 0.15, 0.20, 0.25)
NUMBERS = (8, 16, 32, 64, 128)
PRECISIONS = {"full": torch.float32, "half": torch.float16}
TINY = [
    "model.channels=8", "model.head_channels=8", "sampler.steps=4", "trainer.batch_size=32",
    "trainer.picture_every=0",
]  # fmt: skip


def flat(average: Average) -> Tensor:
    """(P,) all averaged weights."""
    return torch.cat([average.shadow[n].flatten() for n in sorted(average.averaged)])


class Recorder:
    """Keeps the tracked averages at even steps, and at the last one all of them."""

    def __init__(self, steps: int) -> None:
        self.every, self.steps = steps // max(NUMBERS), steps
        if steps % max(NUMBERS):
            raise SystemExit(f"give a number of steps that {max(NUMBERS)} divides")
        self.kept: dict[int, list[Tensor]] = {}
        self.direct: dict[float, Tensor] = {}

    def __call__(self, tracked: Sequence[PowerEMA]) -> None:
        step = tracked[0].updates
        if step % self.every == 0:
            self.kept[step] = [flat(a) for a in tracked if a.length in TRACKED]
        if step == self.steps:
            self.direct = {a.length: flat(a) for a in tracked if a.length not in TRACKED}

    def errors(self) -> list[dict[str, Any]]:
        """A row for each number of snapshots, precision and length."""
        rows = []
        for name, dtype in PRECISIONS.items():
            rounding = ROUNDING[str(dtype).removeprefix("torch.")]
            for number in NUMBERS:
                steps = [s for s in self.kept if s % (self.steps // number) == 0]
                stored = torch.stack([v for s in steps for v in self.kept[s]]).to(dtype)
                t = torch.tensor([float(s) for s in steps for _ in TRACKED])
                gammas = torch.tensor([gamma_of_length(v) for v in TRACKED] * len(steps))
                for length, direct in self.direct.items():
                    found = combine(
                        t, gammas.double(), self.steps, gamma_of_length(length), rounding
                    )
                    made = torch.zeros(len(direct), dtype=torch.float64)
                    for weight, row in zip(found.weights.tolist(), stored, strict=True):
                        made.add_(row.double(), alpha=weight)
                    apart = (made - direct.double()).norm() / direct.double().norm()
                    rows.append({
                        "precision": name, "snapshots": number, "length": length,
                        "error": float(apart), "expected": found.error,
                    })  # fmt: skip
        return rows


def walked(steps: int, size: int, tick: Callable[[], None]) -> list[dict[str, Any]]:
    """Errors on a random walk of `size` numbers from 0."""
    module, generator = nn.Linear(size, 1, bias=False), torch.Generator().manual_seed(0)
    nn.init.zeros_(module.weight)
    tracked = [PowerEMA(module, length) for length in (*TRACKED, *LENGTHS)]
    record = Recorder(steps)
    for _ in range(steps):
        with torch.no_grad():
            module.weight.add_(torch.randn(1, size, generator=generator))
        for average in tracked:
            average.update(module)
        record(tracked)
        tick()
    return record.errors()


def learned(steps: int, settings: Sequence[str], progress: Any) -> list[dict[str, Any]]:
    """Errors on a training of the digits."""
    lengths = ",".join(map(str, (*TRACKED, *LENGTHS)))
    config = compose(
        "train",
        ["domain=image", "trainer.accelerator=cpu", f"trainer.steps={steps}",
         "trainer.snapshots.number=2", f"trainer.snapshots.profiles=[{lengths}]", *settings],
    )  # fmt: skip
    domain, record = domain_class("image")(data=config["data"]), Recorder(steps)
    trained(domain, config, progress, steps, watch=lambda m: record(m.profiles))
    return record.errors()


def chosen(run: Path, settings: Sequence[str], picture: Path | None = None) -> dict[str, Any]:
    """What `python -m sciffusion.ema` finds for a run, which goes on where it was stopped.

    Args:
        picture: where a copy of its curve is put.
    """
    ema.main([f"run={run}", *settings])
    found = json.loads((run / "ema" / "ema.json").read_text())
    config = json.loads((run / "config.json").read_text())
    model = config["model"]["_target_"].rpartition(".")[2]
    if picture is not None:
        shutil.copyfile(run / "ema" / "curve.png", picture)
        found["picture"] = picture.name
    return found | {"domain": config["domain"], "model": model}


def error_table(rows: Sequence[dict[str, Any]], precision: str) -> str:
    cells = [
        [number, *(f"{r['error']:.1e}" for r in rows
                   if r["snapshots"] == number and r["precision"] == precision)]
        for number in NUMBERS
    ]  # fmt: skip
    return markdown(["snapshots", *map(str, LENGTHS)], cells)


def sweep_table(sweeps: Sequence[dict[str, Any]]) -> str:
    def cell(row: dict[str, Any]) -> str:
        return f"{row['value']:.4g} ({row['low']:.4g} to {row['high']:.4g})"

    rows = [
        [f"{s['domain']}, `{s['model']}`", s["metric"], s["length"],
         *(cell(r) for r in s["rows"]), s["rows"][0]["floor"],
         ", ".join(map(str, s["report_seeds"])), s["verdict"]]
        for s in sweeps
    ]  # fmt: skip
    head = ["", "metric", "length", "chosen", "the run's own", "difference", "floor", "seeds", ""]
    return markdown(head, rows)


def page(found: dict[str, Any], options: argparse.Namespace) -> str:
    parts = ["# Post-hoc EMA: any length from snapshots of 0.05 and 0.10"]
    for name, title in (
        ("walk", f"a random walk of {options.walk} steps"),
        ("training", f"the digits, {options.steps} training steps"),
    ):
        parts += [f"Relative error of averages by length, full precision: {title}.",
                  error_table(found[name], "full"),
                  f"The same from snapshots in half precision: {title}.",
                  error_table(found[name], "half")]  # fmt: skip
    if found["sweeps"]:
        parts += ["The length chosen on some seeds, measured on others (mean, 95% interval).",
                  sweep_table(found["sweeps"]),
                  *(f"![{s['domain']}]({s['picture']})" for s in found["sweeps"]
                    if "picture" in s)]  # fmt: skip
    return "\n\n".join(parts)


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="small and short, with a sweep of a tiny run")
    add("--walk", type=int, default=8192, help="steps of the random walk")
    add("--size", type=int, default=4096, help="numbers that walk")
    add("--steps", type=int, default=2048, help="of the training")
    add("--runs", nargs="*", default=[], help="runs with snapshots, each with its sweep's settings")
    add("--name", default="ema_sweep", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    settings, tiny = [], options.quick
    if tiny:
        options.walk, options.size, options.steps, settings = 512, 512, 128, TINY
        options.name = f"{options.name}_quick"
    found: dict[str, Any] = {}
    with bar() as progress:
        task = progress.add_task("a random walk", total=options.walk)
        found["walk"] = walked(options.walk, options.size, lambda: progress.advance(task))
        found["training"] = learned(options.steps, settings, progress)
    found["sweeps"] = [
        chosen(Path(run), settings, RESULTS / f"{options.name}_{k}.png")
        for k, (run, *settings) in enumerate(map(str.split, options.runs), 1)
    ]
    if tiny and not options.runs:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "digits"
            train.main([*TINY, "trainer.steps=64", "trainer.snapshots.number=16", f"run={run}"])
            few = ["lengths=0.05:0.2", "points=3", "n=100", "extractor=rotation"]
            found["sweeps"] = [chosen(run, [*few, "seeds=1", "report_seeds=2,3"])]
    text = page(found, options)
    path = write_result(options.name, vars(options), found, text)
    print(f"{text}\n\nwrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    command(main, options_parser().format_help())
