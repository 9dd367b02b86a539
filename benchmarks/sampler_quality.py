"""Frechet distance by network calls, for every sampler on one trained network.

    python benchmarks/sampler_quality.py --run runs/digits [--quick]

The claim: the best deterministic sampler at 20 calls loses little against DDPM at 1,000 and takes
a small share of its time. Both are chosen on other seeds than they are reported on, DDPM with its
best grid too. Samples are kept in benchmarks/cache, by weights and settings, chunk by chunk, so a
killed run goes on. After a change of sciffusion/core delete that folder.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import HERE, bar, interleaved, markdown, ratio, shown, stopwatch, write_result
from rich.progress import Progress

from sciffusion.atomic import atomic_path
from sciffusion.core import samplers as S
from sciffusion.core import tables
from sciffusion.core.denoiser import Denoiser, Rescheduled
from sciffusion.core.guidance import Clip
from sciffusion.core.times import Karras, UniformGrid, UniformLogSNR
from sciffusion.domains.base import choose_device, domain_class, load_model
from sciffusion.domains.image.features import load_extractor
from sciffusion.io.command import command
from sciffusion.io.config import read_yaml
from sciffusion.io.run import Run
from sciffusion.metrics.floors import real_floor
from sciffusion.metrics.frechet import Moments, frechet_of_moments, moments

BUDGET, REFERENCE = 20, 1000
GRIDS = {
    "karras": Karras(),
    "karras .02": Karras(sigma_min=0.02),
    "log-snr": UniformLogSNR(),
    "uniform": UniformGrid(),
}
TABLES = {"cosine": tables.cosine, "linear": tables.linear}


@dataclass(frozen=True)
class Contender:
    """A family of samplers.

    Args:
        make: steps -> sampler.
        steps: network calls -> steps.
        table: the 1,000-step table it walks instead of the network's own schedule.
        calls: where on the axis it is measured.
        deterministic: may be chosen as the best at `BUDGET` calls.
    """

    make: Callable[[int], S.Sampler]
    steps: Callable[[int], int] = int
    table: str | None = None
    calls: tuple[int, ...] = (5, 10, 20, 50, 100)
    deterministic: bool = True


def contenders() -> dict[str, Contender]:
    """Every sampler on the grids that suit it, by name."""
    found: dict[str, Contender] = {}
    more, pairs = (5, 10, 20, 50, 100, 250), lambda calls: (calls + 1) // 2
    ddim = (*more, REFERENCE)
    for name, grid in GRIDS.items():
        found[f"DDIM, {name}"] = Contender(
            lambda n, g=grid: S.DDIM(n, g), calls=ddim if name == "karras" else more
        )
        if name == "uniform":  # in sigma, on EDM's schedule: shown once, as the warning it is
            continue
        found[f"Heun, {name}"] = Contender(lambda n, g=grid: S.Heun(n, g), pairs)
        found[f"DPM-Solver++ 2M, {name}"] = Contender(lambda n, g=grid: S.DPMSolverPP(n, g))
        found[f"DPM-Solver++ 3M, {name}"] = Contender(
            lambda n, g=grid: S.DPMSolverPP(n, g, order=3), lambda calls: calls - 1
        )
    found["Euler, karras"] = Contender(lambda n: S.Euler(n, Karras()))
    found["DDIM, cosine table"] = Contender(lambda n: S.DDIM(n), table="cosine", calls=ddim)
    for name, make, steps in (
        ("DDIM eta 1", lambda n: S.DDIM(n, Karras(), eta=1.0), int),
        ("SDE-DPM-Solver++", lambda n: S.SDEDPMSolverPP(n, Karras()), int),
        ("Churn", lambda n: S.Churn(n, Karras()), pairs),
        ("PredictorCorrector", lambda n: S.PredictorCorrector(n, Karras()), pairs),
    ):
        found[f"{name}, karras"] = Contender(make, steps, calls=more, deterministic=False)
    ladder = tuple(c for c in ddim if c > 10)
    found["DDPM, karras"] = Contender(
        lambda n: S.DDPM(n, Karras()), calls=ladder, deterministic=False
    )
    for name in TABLES:
        found[f"DDPM, {name} table"] = Contender(
            lambda n: S.DDPM(n), table=name, calls=(REFERENCE,), deterministic=False
        )
    return found


class Bench:
    """One trained network, its test images, and the samples drawn so far."""

    def __init__(self, options: argparse.Namespace, progress: Progress) -> None:
        run = Run(Path(options.run))
        self.options, self.progress = options, progress
        self.domain, self.denoiser, _ = load_model(run.path)
        self.device = choose_device(options.device)
        self.denoiser = self.denoiser.to(self.device)
        trained = read_yaml(run.config)
        self.train, test = domain_class(trained["domain"])(data=trained["data"]).data
        self.extract = load_extractor("classifier", self.train)
        self.reference, self.test = moments(self.extract(test.x).values), test
        digest = hashlib.sha256(run.weights.read_bytes() + str(options.clip).encode())
        self.cache = HERE / "cache" / digest.hexdigest()[:12]
        self.calls = 0
        self.denoiser.network.register_forward_hook(self._count)
        self.task = progress.add_task("sampling", total=0)

    def _count(self, *_: Any) -> None:
        self.calls += 1

    def seen(self, table: str | None) -> Denoiser:
        """The network under its own schedule or a table's."""
        denoiser: Denoiser = Clip(self.denoiser) if self.options.clip else self.denoiser
        return Rescheduled(denoiser, TABLES[table](1000)) if table else denoiser

    def images(self, sampler: S.Sampler, table: str | None, seed: int, index: torch.Tensor) -> Any:
        """Samples number `index` of a seed; the body of `domains.sampling.draw`, which cannot
        begin in the middle."""
        shape, cond = self.domain.prior_cond(index, {})
        kind = torch.float32
        out = sampler(
            self.seen(table), shape, cond.to(self.device), seed, index=index, dtype=kind,
            device=self.device,
        )  # fmt: skip
        return self.domain.decode(out.x.cpu(), cond).x

    def samples(
        self, name: str, sampler: S.Sampler, table: str | None, calls: int, seed: int, n: int
    ) -> tuple[np.ndarray, float]:
        """(n images of a seed, network calls a sample), from the cache where they are there."""
        recipe = str({**vars(sampler), "grid": (type(sampler.grid), vars(sampler.grid))})
        recipe = hashlib.sha256(recipe.encode()).hexdigest()[:8]
        slug = f"{name}-{calls}-{recipe}".replace(" ", "_").replace(",", "")
        parts, counts = [], []
        for index in torch.arange(n).split(self.options.batch):
            first, last = int(index[0]), int(index[-1]) + 1
            path = self.cache / f"{slug}-seed{seed}-{first}-{last}.npz"
            self.progress.update(self.task, description=f"{name}, {calls} calls, seed {seed}")
            if not path.exists():
                before, start = self.calls, time.perf_counter()
                x = self.images(sampler, table, seed, index)
                seconds, used = time.perf_counter() - start, self.calls - before
                with atomic_path(path) as temporary, temporary.open("wb") as file:
                    np.savez_compressed(file, x=x, calls=used, seconds=seconds)
            with np.load(path) as kept:
                parts.append(kept["x"])
                counts.append(float(kept["calls"]))
            self.progress.advance(self.task, len(index) * calls)
        return np.concatenate(parts), statistics.mean(counts)

    def distance(self, x: np.ndarray) -> float:
        """Frechet distance to the test images."""
        return frechet_of_moments(moments(self.extract(x).values), self.reference)

    def point(self, name: str, contender: Contender, calls: int, seed: int, n: int) -> dict:
        """One figure of the curves; it also stands at the number of training images."""
        sampler = contender.make(contender.steps(calls))
        x, used = self.samples(name, sampler, contender.table, calls, seed, n)
        small = min(n, len(self.train.x))
        return {
            "sampler": name, "budget": calls, "calls": used, "seed": seed, "n": n,
            "frechet": self.distance(x), f"frechet_{small}": self.distance(x[:small]),
        }  # fmt: skip

    def floor(self, n: int) -> float:
        """Frechet distance of real training images to the test images."""

        def measure(features: np.ndarray, reference: Moments) -> float:
            return frechet_of_moments(moments(features), reference)

        train = self.extract(self.train.x).values
        return real_floor(measure, train, self.reference, n)


def curves(bench: Bench, entries: dict[str, Contender], options: argparse.Namespace) -> list[dict]:
    """Every contender at every number of calls, on the choosing seed."""
    most = options.most_calls
    jobs = [(k, c, n) for k, c in entries.items() for n in c.calls if n <= most]
    tolerances = (1e-1, 1e-2, 1e-3)
    bench.progress.update(
        bench.task, total=(sum(j[2] for j in jobs) + 100 * len(tolerances)) * options.n_choose
    )
    points = [bench.point(*job, options.choose_seed, options.n_choose) for job in jobs]
    for rtol in tolerances:  # adaptive: the calls are what it takes
        sampler = S.DormandPrince(rtol=rtol, atol=rtol)
        name = f"dopri5, tolerance {rtol:g}"
        x, used = bench.samples(name, sampler, None, 100, options.choose_seed, options.n_choose)
        points.append({
            "sampler": name, "budget": None, "calls": used,
            "seed": options.choose_seed, "n": options.n_choose,
            "frechet": bench.distance(x),
        })  # fmt: skip
    return points


def choose(points: list[dict], entries: dict[str, Contender], options: Any) -> tuple[str, str]:
    """(best deterministic at 20 calls, best DDPM at 1,000) on the choosing seed."""
    fast = [p for p in points if p["budget"] == BUDGET and p["sampler"] in entries]
    fast = [p for p in fast if entries[p["sampler"]].deterministic]
    slow = [p for p in points if p["sampler"].startswith("DDPM")]
    slow = [p for p in slow if p["budget"] == min(REFERENCE, options.most_calls)]
    best = (min(group, key=lambda p: p["frechet"])["sampler"] for group in (fast, slow))
    return next(best), next(best)


def report(bench: Bench, entries: dict, options: Any, fast: str, slow: str) -> list[dict]:
    """The chosen two, and DDIM at the same 20 calls, on seeds nobody chose on."""
    ladder = min(REFERENCE, options.most_calls)
    cells = [(fast, BUDGET), (slow, ladder), *{("DDIM, karras", BUDGET)} - {(fast, BUDGET)}]
    seeds = range(options.seeds)
    bench.progress.reset(
        bench.task, total=sum(calls for _, calls in cells) * options.n * options.seeds
    )
    return [bench.point(k, entries[k], calls, s, options.n) for k, calls in cells for s in seeds]


def timing(bench: Bench, entries: dict, options: Any, fast: str, slow: str) -> dict[str, Any]:
    """How long the two take for the same samples, in turns."""
    index = torch.arange(options.n_time)

    def work(name: str, calls: int) -> Callable[[], Any]:
        entry = entries[name]
        return lambda: bench.images(entry.make(entry.steps(calls)), entry.table, 0, index)

    ladder = min(REFERENCE, options.most_calls)
    timers = {
        "fast": stopwatch(work(fast, BUDGET), 3),
        "slow": stopwatch(work(slow, ladder)),
    }
    seconds = interleaved(timers, options.repeats, warm_up=0, label="timing both")
    return {"seconds": seconds, "n": options.n_time, "slow_over_fast": ratio(
        seconds["slow"], seconds["fast"])}  # fmt: skip


def summary(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.4g} ± {deviation:.2g}"


def page(body: dict[str, Any], options: Any, test: int) -> str:
    """The tables."""
    found, floors, small = body["report"], body["floors"], max(body["floors"], key=int)
    key = f"frechet_{small}"
    rows = []
    for name, calls in dict.fromkeys((p["sampler"], p["calls"]) for p in found):
        own = [p for p in found if (p["sampler"], p["calls"]) == (name, calls)]
        small_figure = summary([p[key] for p in own]) if key in own[0] else None
        rows.append([name, f"{calls:.0f}", summary([p["frechet"] for p in own]), small_figure])
    rows += [["real training images (floor)", None, None, f"{v:.4g} (n={k})"]
             for k, v in floors.items()]  # fmt: skip
    columns = sorted({p["budget"] for p in body["curves"] if p["budget"]})
    grid = []
    for name in dict.fromkeys(p["sampler"] for p in body["curves"]):
        own = {
            p["budget"] or p["calls"]: p["frechet"] for p in body["curves"] if p["sampler"] == name
        }
        if "dopri5" in name:
            ((calls, value),) = own.items()
            grid.append([f"{name}: {value:.3g} at {calls:.0f} calls", *[None] * len(columns)])
        else:
            grid.append([name, *[own.get(c) for c in columns]])
    loss, faster = body["relative_loss"], body["timing"]["slow_over_fast"]
    return "\n\n".join([
        f"# Samplers on one network: Frechet distance to {test} test images",
        f"Chosen on seed {options.choose_seed} (n={options.n_choose}), reported on {options.seeds} "
        f"other seeds, mean ± standard deviation. The distance depends on n: compare columns only.",
        markdown(["sampler", "calls", f"n={options.n}", f"n={small}"], rows),
        f"**{body['fast']}** at {BUDGET} calls against **{body['slow']}** at "
        f"{body['reference_calls']}: relative loss {loss['mean']:+.1%} ± {loss['std']:.1%}, "
        f"{shown(faster)} times faster (median and quartiles, interleaved).",
        f"## By network calls (seed {options.choose_seed}, n={options.n_choose})",
        "Samplers of two calls a step take one call fewer than the column says.",
        markdown(["sampler", *map(str, columns)], grid),
    ])  # fmt: skip


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--run", required=True, help="directory of a trained run")
    add("--n", type=int, default=5000, help="samples a reported figure")
    add("--seeds", type=int, default=3, help="reported seeds 0, 1, ...")
    add("--n-choose", type=int, default=2000, help="samples a point of the curves")
    add("--choose-seed", type=int, default=100)
    add("--batch", type=int, default=500)
    add("--n-time", type=int, default=250, help="samples that are timed")
    add("--repeats", type=int, default=3, help="rounds of timing")
    add("--most-calls", type=int, default=REFERENCE, help="leave out what takes more")
    add("--clip", action="store_true", help="clip every predicted image to [-1, 1]")
    add("--device", default="auto")
    add("--quick", action="store_true", help="small numbers, to see that it runs")
    add("--name", default=None, help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    if options.quick:
        options.n = options.n_choose = options.n_time = options.batch = 64
        options.seeds, options.repeats, options.most_calls = 2, 2, 50
    options.name = options.name or "sampler_quality" + ("_quick" if options.quick else "")
    entries = contenders()
    with bar() as progress:
        bench = Bench(options, progress)
        points = curves(bench, entries, options)
        fast, slow = choose(points, entries, options)
        progress.log(f"chosen: {fast} at {BUDGET} calls; the reference is {slow}")
        found = report(bench, entries, options, fast, slow)
    with torch.inference_mode():
        timed = timing(bench, entries, options, fast, slow)
    by = {k: [p["frechet"] for p in found if p["sampler"] == k] for k in (fast, slow)}
    losses = [a / b - 1 for a, b in zip(by[fast], by[slow], strict=True)]
    sizes = sorted({min(options.n_choose, len(bench.train.x)), len(bench.train.x)})
    body = {
        "network": {"run": options.run, "weights": bench.cache.name},
        "fast": fast, "slow": slow, "reference_calls": min(REFERENCE, options.most_calls),
        "relative_loss": {
            "by_seed": losses, "mean": statistics.mean(losses),
            "std": statistics.stdev(losses) if len(losses) > 1 else 0.0,
        },
        "timing": timed, "floors": {str(n): bench.floor(n) for n in sizes},
        "report": found, "curves": points,
    }  # fmt: skip
    text = page(body, options, len(bench.test.x))
    path = write_result(options.name, vars(options), body, text)
    print(text)
    print(f"\nwrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    command(main, options_parser().format_help())
