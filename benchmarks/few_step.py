"""A few jumps against many steps: python benchmarks/few_step.py --domain image|molecule|protein

    python benchmarks/few_step.py --domain image --run RUN [--losses consistency ...]
    python benchmarks/few_step.py --domain molecule --data data=store data.root=STORE
    python benchmarks/few_step.py --domain image --quick

Students of one teacher (a run, the domain's packaged weights, or, with --quick, a run of seconds)
by each loss, through `sciffusion.distill`: each is measured as `evaluate` does at 1, 2 and 4 calls,
beside the teacher at 20 and 100. A killed benchmark goes on; students are kept in --work.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from common import HERE, RESULTS, markdown, write_result

from sciffusion import distill, train
from sciffusion.io.command import command

mpl.use("Agg")

HEADLINES = {
    "image": ("Frechet distance", "kernel distance", "precision", "recall"),
    "molecule": ("COV-R", "AMR-R", "COV-P", "AMR-P", "stereo obeyed, first"),
    "protein": ("JS, CA angle", "CA-CA valid", "residues that clash", "TM of pairs"),
}
"""Measures of the table by the beginnings of their names; the first is drawn."""
QUICK = {
    "image": (
        ["trainer.batch_size=16", "model.channels=8", "model.head_channels=8"],
        ["n=40", "extractor=rotation"],
    ),
    "molecule": (
        ["trainer.batch_size=4", "model.dim=8", "model.pair_dim=4", "model.layers=1",
         "model.heads=2", "model.bond_layers=1"],
        ["molecules=2", "conformers=1", "tries=1"],
    ),
    "protein": (
        ["trainer.batch_size=4", "model.irreps=16x0e+8x1e", "model.edge=8x0e+8x1e",
         "model.value=8x0e+8x1e", "model.mixed=8x0e+8x1e", "model.layers=1", "model.heads=4",
         "model.pair_dim=8", "model.hidden=8", "model.radial=8", "data.count=40"],
        ["n=4", "lengths=20-30", "pairs=2"],
    ),
}  # fmt: skip
"""Settings of a teacher of seconds, and of what is measured then."""
SHORT = ["trainer.steps=10", "trainer.picture_every=0"]


def teacher(options: argparse.Namespace, work: Path) -> tuple[list[str], list[str]]:
    """(where the teacher is, as distill is told; what is measured)."""
    if not options.quick:
        named = [f"run={options.run}"] if options.run else [f"domain={options.domain}"]
        return [*named, *options.data], options.measures
    settings, measures = QUICK[options.domain]
    run = work / "teacher"
    if not (run / "model.safetensors").exists():
        train.main([f"domain={options.domain}", *SHORT, *settings, f"run={run}"])
    return [f"run={run}"], [*measures, *options.measures]


def student(
    options: argparse.Namespace, loss: str, named: list[str], measures: list[str], work: Path
) -> list[dict[str, Any]]:
    """The ways of one student, trained and measured where that is not done yet."""
    out = work / loss
    found = out / "few_steps.json"
    if not found.exists():
        short = [*SHORT, "trainer.batch_size=4"] if options.quick else []
        steps = ["students=[1,2]", "teachers=[4]"] if options.quick else []
        settings = [*short, *steps, *options.settings, f"seed={options.seed}"]
        distill.main([*named, f"loss={loss}", f"out={out}", *settings, *measures])
    ways: list[dict[str, Any]] = json.loads(found.read_text())["ways"]
    return ways


def rows_of(ways: list[dict[str, Any]], columns: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Of each way the rows of the columns' names."""
    return [
        [next((r for r in way["rows"] if r["name"].startswith(c)), {}) for c in columns]
        for way in ways
    ]


def figure_of(row: dict[str, Any]) -> str | None:
    if row.get("value") is None:
        return None
    if row.get("low") is None or row.get("high") is None:
        return f"{row['value']:.3g}"
    return f"{row['value']:.3g} ({row['low']:.3g} to {row['high']:.3g})"


def page(results: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> str:
    """The table: a row a way, the teacher's once."""
    columns, cells = HEADLINES[options.domain], []
    first = next(iter(results.values()))
    slowest = max(way["seconds"] for way in first if way["name"].startswith("teacher"))
    floors = next(iter(rows_of(first, columns)))
    for k, (loss, ways) in enumerate(results.items()):
        for way, rows in zip(ways, rows_of(ways, columns), strict=True):
            of_teacher = way["name"].startswith("teacher")
            if of_teacher and k > 0:
                continue
            name = way["name"] if of_teacher else f"{loss}, {way['name'].partition(', ')[2]}"
            cells.append([name, way["calls"], 1e3 * way["seconds"], slowest / way["seconds"],
                          *map(figure_of, rows)])  # fmt: skip
    cells.append(["real data (floor)", None, None, None, *(r.get("floor") for r in floors)])
    title = f"# Few steps, {options.domain}: jumps of a distilled network beside its teacher"
    kind = " A quick run: the figures mean nothing." if options.quick else ""
    if options.domain == "protein":
        kind += " Bonds are closed after the last jump, as `sample` does."
    if relaxed := [m.partition("=")[2] for m in options.measures if m.startswith("relax=")]:
        title += f", both relaxed with {relaxed[-1]}"
    return "\n\n".join([
        title,
        "One seed; 95% intervals of `evaluate`; milliseconds a sample when 8 are drawn together, "
        f"speed-ups against the teacher's slowest.{kind}",
        markdown(["", "network calls", "ms a sample", "times faster", *columns], cells),
    ])  # fmt: skip


def picture(results: dict[str, list[dict[str, Any]]], domain: str, path: Path) -> Path:
    """The headline against network calls, a line each for the teacher and its students."""
    column = HEADLINES[domain][0]
    figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
    lines: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for k, (loss, ways) in enumerate(results.items()):
        for way, (row,) in zip(ways, rows_of(ways, [column]), strict=True):
            of_teacher = way["name"].startswith("teacher")
            if row.get("value") is not None and (k == 0 or not of_teacher):
                lines.setdefault("teacher" if of_teacher else loss, []).append((way["calls"], row))
    for name, points in lines.items():
        calls, rows = zip(*sorted(points, key=lambda p: p[0]), strict=True)
        axis.plot(calls, [r["value"] for r in rows], marker="o", label=name.replace("_", " "))
    floor = next((r["floor"] for p in lines.values() for _, r in p if r.get("floor")), None)
    if floor is not None:
        axis.axhline(floor, color="0.5", ls="--", label="real data")
    axis.set(xscale="log", xlabel="network calls", ylabel=column)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    return path


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--domain", required=True, choices=list(HEADLINES))
    add("--run", help="the teacher; by default the domain's packaged weights")
    add("--data", nargs="*", default=[], help="as to distill: data=store data.root=STORE")
    add("--losses", nargs="+", default=["consistency", "consistency_distillation"])
    add("--settings", nargs="*", default=[], help="of distill: trainer.steps=5000 rate.lr=1e-4")
    add(
        "--measures",
        nargs="*",
        default=[],
        help="of evaluate: n=1000, molecules=20, lengths=60-100",
    )
    add("--work", help="folder of the students; by default benchmarks/cache/few_step")
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="a teacher of seconds: whether it runs, no more")
    add("--name", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    kind = f"{options.domain}-quick" if options.quick else options.domain
    work = Path(options.work or HERE / "cache" / "few_step") / kind
    named, measures = teacher(options, work)
    results = {loss: student(options, loss, named, measures, work) for loss in options.losses}
    text = page(results, options)
    name = options.name or f"few_step_{kind.replace('-', '_')}"
    path = write_result(name, vars(options), {"students": results}, text)
    drawn = picture(results, options.domain, RESULTS / f"{name}.png")
    print(f"{text}\n\nwrote {path}, {path.with_suffix('.md')} and {drawn}")


if __name__ == "__main__":
    command(main, options_parser().format_help())
