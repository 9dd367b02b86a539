"""Conformer quality by network calls, for several samplers, beside RDKit's ETKDGv3 and its kin.

    python benchmarks/molecule_conformers.py --run RUN --references STORE_OR_SDF [--quick]

The GEOM protocol: 2K samples for K references. The first row is the run's own sampler as users get
it, faulty conformers drawn again; the curve is of first draws as they come. A killed run goes on
from its cache (see conformer_sets.py).
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import bar, markdown, write_result
from conformer_sets import Drawn, Sets
from rdkit import rdBase

from sciffusion.core import samplers as S
from sciffusion.core.times import Grid, Karras, UniformGrid, UniformLogSNR
from sciffusion.domains.molecule.geom_protocol import COLUMNS, SAMPLES, GeomResult, geom_protocol
from sciffusion.domains.molecule.graph import Record
from sciffusion.domains.molecule.metrics import Measures, busters_rows, evaluate_ensembles
from sciffusion.domains.molecule.peers import PEERS
from sciffusion.domains.molecule.stereo import bonds_kept, obeys
from sciffusion.errors import InputError
from sciffusion.io.command import command
from sciffusion.metrics.bootstrap import mean_interval

GRIDS = {"karras": Karras(), "log-snr": UniformLogSNR(), "uniform": UniformGrid()}

Make = Callable[[int, Grid], S.Sampler | None]


def _from(least: int, make: Callable[[int, Grid], S.Sampler]) -> Make:
    """Nothing where there are fewer calls than it needs."""
    return lambda calls, grid: make(calls, grid) if calls >= least else None


SAMPLERS: dict[str, Make] = {
    "DDIM": _from(1, lambda n, g: S.DDIM(n, g)),
    "Heun": _from(1, lambda n, g: S.Heun((n + 1) // 2, g)),
    "DPM-Solver++ 2M": _from(1, lambda n, g: S.DPMSolverPP(n, g)),
    "DPM-Solver++ 3M": _from(3, lambda n, g: S.DPMSolverPP(n - 1, g, order=3)),
    "DDIM eta 1": _from(1, lambda n, g: S.DDIM(n, g, eta=1.0)),
    "SDE-DPM-Solver++": _from(1, lambda n, g: S.SDEDPMSolverPP(n, g)),
    "Churn": _from(1, lambda n, g: S.Churn((n + 1) // 2, g)),
    "AlphaFold 3": _from(1, lambda n, g: S.alphafold3(n)),
}
"""Network calls and grid to sampler."""
OWN = "the run's own"
"""Stands for the run's sampler, with other numbers of calls."""
DELTAS = [0.125 * k for k in range(1, 17)]


def row_of(bench: Sets, name: str, calls: int | None, draws: Sequence[Drawn]) -> dict[str, Any]:
    """The figures of a generator; `draws` are its (conformers, seconds) by seed."""
    results = [measured(bench, records) for records, _ in draws]
    done = [[r for r in records if len(r.coords)] for records, _ in draws]
    flat = [r for records in done for r in records]
    total = sum(len(r.coords) for r in flat)
    seconds = sum(s for _, s in draws)

    def share(check: Callable) -> float | None:
        asked = [r for r in flat if check is bonds_kept or has_stereo(r)]
        hits = [check(r.coords, r.graph) for r in asked]
        return float(np.concatenate(hits).mean()) if hits else None

    return {
        "name": name, "calls": calls, "seeds": len(draws), "conformers": total,
        "mean": [r.mean() for r in results], "median": [r.median() for r in results],
        "failed": [r.failed for r in results], "curve": results[0].curve(DELTAS),
        "stereo": share(obeys), "bonds": share(bonds_kept),
        "rate": total / seconds if seconds else None,
        "molecules": np.mean([r.figures for r in results], axis=0).round(4).tolist(),
    }  # fmt: skip


def measured(bench: Sets, records: Sequence[Record]) -> GeomResult:
    finite = [Record(r.graph, r.coords[np.isfinite(r.coords).all((1, 2))]) for r in records]
    pairs = list(zip(finite, bench.references, strict=True))
    return geom_protocol(pairs, bench.options.delta, bench.options.workers)


def has_stereo(record: Record) -> bool:
    return bool(record.graph.tetra_sign.any() or record.graph.ez_sign.any())


def rows_of(
    bench: Sets, options: argparse.Namespace
) -> tuple[list[dict], Drawn, list[Record], list[Record]]:
    """(rows, the own sampler's conformers of seed 0: as returned, first draws, relaxed)."""
    seeds, own = range(options.seeds), bench.own
    label, calls = f"{options.label}, {type(own).__name__}", bench.calls(own)
    returned, first = (
        [bench.drawn("own", own, s, tries) for s in seeds] for tries in (options.tries, 1)
    )
    rows = [row_of(bench, f"{label}, returned", calls, returned)]
    rows.append(row_of(bench, f"{label}, first draws", calls, first))
    moved: list[Drawn] = []
    if options.relax:
        slugs = [bench.slug("own", own, s, options.tries) for s in seeds]
        moved = [bench.relaxed(k, r) for k, (r, _) in zip(slugs, returned, strict=True)]
        row = row_of(bench, f"{label}, returned, relaxed with MMFF94", calls, moved)
        rows.append(row | {"rate": None})
    for name in options.peers:
        rows.append(row_of(bench, PEERS[name].label, None, [bench.peer(name, s) for s in seeds]))
    grid = GRIDS[options.grid] if options.grid else own.grid
    calls_a_step = calls / own.steps
    for name in options.samplers:
        for budget in options.calls:
            if name == OWN:
                sampler = copy.copy(own)
                sampler.steps = max(1, round(budget / calls_a_step))
            else:
                sampler = SAMPLERS[name](budget, grid)
            if sampler is None or refused(sampler, bench):
                continue
            calls = bench.calls(sampler)
            if (name, calls) in ((row["name"], row["calls"]) for row in rows):
                continue  # two budgets that buy it as many steps
            draws = [bench.drawn(f"{name}-{budget}", sampler, s, 1) for s in seeds]
            rows.append(row_of(bench, name, calls, draws))
    return rows, returned[0], first[0][0], moved[0][0] if moved else []


def refused(sampler: S.Sampler, bench: Sets) -> bool:
    try:
        sampler.check(bench.denoiser)
        sampler.grid(sampler.steps, bench.denoiser.schedule)
    except (TypeError, ValueError) as error:
        bench.progress.log(f"{type(sampler).__name__} is left out: {error}")
        return True
    return False


def against(rows: Sequence[dict], first: dict) -> list[dict[str, Any]]:
    """Mean difference, molecule by molecule, of the first row and each peer, with intervals."""
    found = []
    for row in rows:
        apart = np.array(first["molecules"]) - np.array(row["molecules"])
        entry: dict[str, Any] = {"name": row["name"]}
        for name, column in zip(COLUMNS, apart.T, strict=True):
            own = column[~np.isnan(column)]
            entry[name] = vars(mean_interval(own, 1000)) if len(own) else None
        found.append(entry)
    return found


def plain(value: Any) -> Any:
    """The same with None for what JSON has no word for."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def page(body: dict[str, Any], options: argparse.Namespace, full: str) -> str:
    def percent(value: float | None) -> str | None:
        return None if value is None else f"{100 * value:.2f}"

    cells = [
        [row["name"], row["calls"], *(shown([m[c] for m in row["mean"]]) for c in COLUMNS),
         percent(row["stereo"]), percent(row["bonds"]),
         max(len(f) for f in row["failed"]) or None, row["rate"]]
        for row in body["rows"]
    ]  # fmt: skip
    head = ["", "calls", *COLUMNS, "stereo obeyed, %", "bonds kept, %", "molecules failed",
            "conformers/s"]  # fmt: skip
    differences = [
        [f"own sampler - {entry['name']}",
         *("" if entry[c] is None else
           f"{entry[c]['value']:+.3f} ({entry[c]['low']:+.3f} to {entry[c]['high']:+.3f})"
           for c in COLUMNS)]
        for entry in body["against"]
    ]  # fmt: skip
    many = (
        f"mean ± standard deviation of {options.seeds} seeds" if options.seeds > 1 else "one seed"
    )
    return "\n\n".join([
        f"# Conformers of {body['count']} molecules ({Path(options.references).name}): the GEOM "
        "protocol",
        f"{SAMPLES}K samples for K references ({body['references']} in all), heavy-atom RMSD over "
        f"symmetric matches, COV at {options.delta:g} A, AMR in A; means over molecules, {many}. "
        f"The first row draws up to {options.tries} times until bonds and stereo are right; the "
        "samplers below are first draws as they come. Peers' rates are of one core.",
        markdown(head, cells),
        "Differences within molecules, 95% bootstrap intervals over molecules:",
        markdown(["", *COLUMNS], differences),
        full,
    ])  # fmt: skip


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--run", required=True, help="directory of a trained run, or a .safetensors file")
    add("--references", required=True, help="a prepared store, or an SDF with several conformers")
    add("--limit", type=int, help="molecules at most, evenly through the list")
    add("--held-out", type=float, help="of a store: those that data.val_share=THIS holds out")
    add("--delta", type=float, default=0.75, help="of COV, in Angstrom")
    add("--calls", type=int, nargs="+", default=[1, 2, 5, 10, 20, 50, 100])
    add("--samplers", nargs="*", default=[*SAMPLERS, OWN], choices=[*SAMPLERS, OWN])
    add("--grid", choices=list(GRIDS), help="by default that of the run's own sampler")
    add("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    add("--relax", action="store_true", help="the own sampler's conformers relaxed with MMFF94 too")
    add("--seeds", type=int, default=1, help="0, 1, ...")
    add("--tries", type=int, default=20, help="draws of a returned conformer, at most")
    add("--energy", type=int, default=10, help="conformers of a molecule whose strain is measured")
    add("--busters", type=int, default=2, help="the same with PoseBusters")
    add("--most-atoms", type=int, help="of a batch; by default what suits the device")
    add("--workers", type=int, help="processes; by default one a core")
    add("--device", default="auto")
    add("--label", default="sciffusion", help="of the run, in the table")
    add("--quick", action="store_true", help="small numbers, to see that it runs")
    add("--name", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    if options.quick:
        options.limit, options.calls = min(options.limit or 2, 2), [1, 5]
        options.samplers, options.peers = options.samplers[:3], options.peers[:2]
        options.busters, options.energy, options.tries = 0, 2, 2
    if min(options.seeds, options.tries, *options.calls) < 1:
        raise InputError("--seeds, --tries and --calls must be at least 1")
    options.name = options.name or "molecule_conformers" + ("_quick" if options.quick else "")
    with bar() as progress:
        bench = Sets(options, progress)
        rows, (returned, seconds), first, moved = rows_of(bench, options)
        how = Measures(options.delta, energy=options.energy, busters=options.busters, peers=(),
                       workers=options.workers)  # fmt: skip
        task = progress.add_task("measuring", total=how.rounds * len(returned))
        table = evaluate_ensembles(
            returned, bench.references, how, seconds, first, lambda n: progress.advance(task, n)
        )
        if moved:
            pairs = list(zip(moved, bench.references, strict=True))
            more = busters_rows(pairs, how, of=", relaxed with MMFF94")
            table = replace(table, rows=[*table.rows, *more])
    known = [PEERS[name].label for name in options.peers]
    body = {
        "network": {"run": Path(options.run).name, "weights": bench.weights},
        "count": len(bench.references), "rdkit": rdBase.rdkitVersion,
        "references": sum(len(r.coords) for r in bench.references),
        "names": [r.graph.name for r in bench.references],
        "rows": rows, "against": against([r for r in rows if r["name"] in known], rows[0]),
        "table": table.to_dict(),
    }  # fmt: skip
    text = page(body, options, table.markdown())
    settings = vars(options) | {k: Path(getattr(options, k)).name for k in ("run", "references")}
    path = write_result(options.name, settings, plain(body), text)
    print(text)
    print(f"\nwrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    command(main, options_parser().format_help())
