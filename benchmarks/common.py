"""What the benchmarks share: who measured, honest timing, and results as JSON and Markdown.

Timings are interleaved: every contender once, then every contender again, in a shuffled order. A
machine that slows down slows all of them, so the ratio within a round is what is reported, as
median and quartiles over the rounds.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import random
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sciffusion.atomic import atomic_path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PACKAGES = ("torch", "sciffusion", "diffusers", "denoising-diffusion-pytorch", "numpy")

Timer = Callable[[], float]


def machine() -> dict[str, Any]:
    """Processor, cores, threads in use and GPU."""
    cpu, listing = platform.processor(), Path("/proc/cpuinfo")
    for line in listing.read_text().splitlines() if listing.exists() else ():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "gpu": gpu,
        "platform": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Python and the packages measured; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of this checkout, with "+changes" where files differ from it."""
    try:
        git = ["git", "-C", str(HERE)]
        head = subprocess.check_output([*git, "rev-parse", "--short=12", "HEAD"], text=True)
        changed = subprocess.check_output([*git, "status", "--porcelain"], text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+changes" if changed else "")


def write_result(
    name: str, settings: Mapping[str, Any], body: Mapping[str, Any], page: str
) -> Path:
    """results/NAME.json with all that is needed to repeat it, and results/NAME.md to read.

    Of paths among the settings the last part is kept.
    """
    about = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "settings": {k: _placeless(v) for k, v in settings.items()},
    }
    path = RESULTS / f"{name}.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({**about, **body}, indent=1, default=str) + "\n")
    host = about["machine"]
    packages = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    foot = (
        f"{about['date']}, commit {about['commit']}; {host['cpu']}, {host['cores']} cores, "
        f"{host['threads']} threads, load {host['load']}, GPU {host['gpu'] or 'none'}; {packages}. "
        f"Settings and all numbers: `{path.name}`."
    )
    with atomic_path(path.with_suffix(".md")) as temporary:
        temporary.write_text(f"{page.strip()}\n\n{foot}\n")
    return path


def _placeless(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_placeless(v) for v in value]
    if not isinstance(value, str | Path):
        return value
    return re.sub(r"(^|[=,\s])(?:~|\.\.?)?/[^,\s]*/", r"\1", str(value))


def markdown(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; None is an empty cell and floats get three digits."""

    def cell(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows])


def kept(name: str, recipe: Any, work: Callable[[], dict] | None) -> dict | None:
    """What `work` finds, from benchmarks/cache where it was done before; None where it is not.

    Args:
        name: of the part.
        recipe: what it follows from, as text.
        work: None leaves it undone.
    """
    digest = hashlib.sha256(repr(recipe).encode()).hexdigest()[:10]
    path = HERE / "cache" / "parts" / f"{name}-{digest}.json"
    if not path.exists():
        if work is None:
            return None
        text = json.dumps(work())
        with atomic_path(path) as temporary:
            temporary.write_text(text)
    found: dict = json.loads(path.read_text())
    return found


def weights_digest(run: str | Path) -> str:
    """Of the weights of a run's folder or of a .safetensors file."""
    path = Path(run)
    path = path if path.suffix == ".safetensors" else path / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def bar() -> Progress:
    """A progress bar with the time left."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def stopwatch(work: Callable[[], Any], inner: int = 1) -> Timer:
    """Seconds of one call of `work`, as the mean of `inner`; waits for a GPU's work to end."""

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def timer() -> float:
        wait()
        start = time.perf_counter()
        for _ in range(inner):
            work()
        wait()
        return (time.perf_counter() - start) / inner

    return timer


def interleaved(
    timers: Mapping[str, Timer], repeats: int, warm_up: int = 1, label: str = "timing"
) -> dict[str, list[float]]:
    """Seconds of each contender in each round; rounds are shuffled, the first ones thrown away."""
    order, seconds = random.Random(0), {name: [] for name in timers}
    with bar() as progress:
        task = progress.add_task(label, total=(warm_up + repeats) * len(timers))
        for number in range(warm_up + repeats):
            for name in order.sample(list(timers), len(timers)):
                taken = timers[name]()
                if number >= warm_up:
                    seconds[name].append(taken)
                progress.advance(task)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    if len(values) == 1:
        return dict.fromkeys(("median", "low", "high"), values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Spread of the ratio within each round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def shown(value: Mapping[str, float], digits: int = 3, scale: float = 1.0) -> str:
    """median (low to high)."""
    median, low, high = (f"{scale * value[k]:.{digits}g}" for k in ("median", "low", "high"))
    return f"{median} ({low} to {high})"


def growth(sizes: Sequence[float], cost: Sequence[float]) -> float:
    """Exponent of the cost in the size, least squares on logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(cost), 1)[0])


def memory_above(work: Callable[[], Any], device: torch.device) -> float | None:
    """MiB at the peak of `work` above what is taken before; None if unknown.

    For a process of its own: what one has had and given back hides what comes after.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return None

    def kib(name: str) -> int:
        lines = status.read_text().splitlines()
        return next(int(v.split()[1]) for v in lines if v.startswith(name))

    reset.write_text("5")  # the peak begins anew
    before = kib("VmRSS")
    work()
    return (kib("VmHWM") - before) / 2**10
