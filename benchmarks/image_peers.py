"""Our U-Net and loops beside diffusers and denoising-diffusion-pytorch, at (near) equal size.

    python benchmarks/image_peers.py [--preset cifar|digits] [--size 32 --channels 64 --batch 16]
    python benchmarks/image_peers.py --preset digits --quality --minutes 3

Speed: a whole training step (loss, backward, clipping, optimizer, EMA) and a sampling step, all in
one process, in turns, as ratios. Quality: Frechet distance after equal wall-clock training in turns
on the digits. A peer that is not installed is a row that says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from common import bar, interleaved, markdown, ratio, shown, spread, stopwatch, write_result
from lightning import Callback
from peers import PEERS, Contender, Ours, Shape, flops, matched, parameters, random_splits
from torch import Tensor

from sciffusion.core.samplers import DDIM
from sciffusion.core.times import Karras
from sciffusion.data.order import Steps, loader
from sciffusion.domains.image.data import Digits, ImageDataset, Splits
from sciffusion.domains.image.features import load_extractor
from sciffusion.io.command import command
from sciffusion.metrics.floors import real_floor
from sciffusion.metrics.frechet import frechet_distance
from sciffusion.training.fit import make_module, make_trainer

OURS = "sciffusion"
PRESETS: dict[str, dict[str, Any]] = {
    "cifar": {"size": 32, "image_channels": 3, "channels": 64, "mult": (1, 2), "blocks": 2,
              "head_channels": 64, "batch": 16},
    "digits": {"size": 8, "image_channels": 1, "channels": 24, "mult": (1, 2), "blocks": 1,
               "head_channels": 24, "batch": 128},
}  # fmt: skip


class Clock(Callback):
    """Notes when each training step of a real Lightning run ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())


def engine(ours: Ours, shape: Shape, steps: int) -> Callable[[], float]:
    """Seconds of a step of `python -m sciffusion.train`: Lightning and loader, without the logs."""
    module = make_module(ours.domain, ours.config)
    data = ours.domain.train_set()

    def timer() -> float:
        clock = Clock()
        stream = loader(data, 0, shape.batch, lambda: Steps(0, steps + 2, shape.batch))
        make_trainer(ours.config, steps + 2, [clock]).fit(module, stream)
        return statistics.mean(b - a for a, b in itertools.pairwise(clock.ends[1:]))

    return timer


def build(shape: Shape, splits: Splits) -> tuple[dict[str, Contender], list[dict[str, Any]]]:
    """(contenders by name, what they are); a peer's width is chosen to match ours."""
    ours = Ours(shape, splits)
    size = parameters(ours.network), flops(ours, shape)
    found: dict[str, Contender] = {OURS: ours}
    rows = [describe(OURS, ours, shape.channels, shape)]
    for name in PEERS:
        if (pair := matched(name, shape, size)) is None:
            rows.append({"name": name, "installed": False})
            continue
        found[name] = pair[0]
        rows.append(describe(name, *pair, shape))
    return found, rows


def describe(name: str, contender: Contender, width: int, shape: Shape) -> dict[str, Any]:
    return {
        "name": name, "installed": True, "width": width, "about": contender.about,
        "parameters": parameters(contender.network), "flops": flops(contender, shape),
    }  # fmt: skip


def speed(shape: Shape, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """(numbers, page) of training and sampling steps."""
    contenders, rows = build(shape, random_splits(shape))
    x = torch.rand(shape.batch, shape.image_channels, shape.size, shape.size).to(shape.device)
    label = torch.arange(shape.batch, device=shape.device) % shape.classes
    autocast = torch.autocast(shape.device, torch.bfloat16, enabled=options.bf16)

    def train(contender: Contender) -> Callable[[], Any]:
        def work() -> None:
            with autocast:
                contender.step(x, label)

        return work

    steps = {k: stopwatch(train(c), options.inner) for k, c in contenders.items()}
    if shape.device == "cpu":
        steps[f"{OURS}, under Lightning"] = engine(contenders[OURS], shape, max(4, options.inner))
    trained = interleaved(steps, options.repeats, warm_up=2, label="training steps")

    calls = options.calls[0]
    pixels = torch.rand(options.sample_batch, *x.shape[1:]).to(shape.device)
    labels = torch.arange(len(pixels), device=shape.device) % shape.classes

    def bare(contender: Contender) -> Callable[[], Any]:
        forward = contender.forward(pixels, labels)

        def work() -> None:
            contender.network.eval()
            with torch.no_grad(), autocast:
                for _ in range(calls):
                    forward()

        return work

    def loop(contender: Contender, **how: Any) -> Callable[[], Any]:
        def work() -> None:
            with autocast:
                contender.sample(labels, calls, **how)

        return work

    timers = {}
    for k, c in contenders.items():
        timers[f"{k}: network"] = stopwatch(bare(c))
        timers[f"{k}: loop"] = stopwatch(loop(c))
    ddim = f"{OURS} DDIM"
    timers[f"{ddim}: loop"] = stopwatch(loop(contenders[OURS], sampler=DDIM(calls, Karras())))
    sampled = interleaved(timers, options.repeats, warm_up=1, label="sampling loops")
    sampled[f"{ddim}: network"] = sampled[f"{OURS}: network"]

    body = {"contenders": rows, "train_seconds": trained, "sample_seconds": sampled}
    body["sample_calls"], body["ratios"] = calls, {}
    table = []
    for row in rows:
        name = row["name"]
        if not row["installed"]:
            table.append([name, "not installed"])
            continue
        cells = [name, row["width"], f"{row['parameters'] / 1e6:.3f}", f"{row['flops'] / 1e6:.1f}"]
        table.append(cells + timing_cells(name, trained, sampled, calls, body["ratios"]))
    for name in (f"{OURS}, under Lightning", ddim):
        cells = [name, None, None, None]
        table.append(cells + timing_cells(name, trained, sampled, calls, body["ratios"]))
    page = "\n\n".join([
        f"# Speed beside peers: {shape.size} x {shape.size} x {shape.image_channels}, training "
        f"batch {shape.batch}, sampling batch {options.sample_batch}, "
        f"{'bfloat16 autocast' if options.bf16 else 'float32'}, {shape.device}",
        f"Median (quartiles) of {options.repeats} interleaved rounds; ratios are ours / theirs in "
        f"the same round, below 1 is faster. Sampling: {calls} calls; overhead is the loop over as "
        "many bare network calls, less 1.",
        markdown(
            ["", "width", "M parameters", "MFLOP an image", "training step, ms", "ours / theirs",
             "sampling step, ms", "ours / theirs", "loop overhead, %"], table),
        "\n".join(f"- {r['name']}: {r['about']}." for r in rows if r["installed"]),
    ])  # fmt: skip
    return body, page


def timing_cells(
    name: str, trained: dict, sampled: dict, calls: int, ratios: dict[str, Any]
) -> list[str | None]:
    """Times and ratios of one row; the ratios are kept in `ratios` too."""
    own: dict[str, Any] = {}
    if name in trained:
        own["train"] = ratio(trained[OURS], trained[name])
    loop, network = (sampled.get(f"{name}: {part}") for part in ("loop", "network"))
    if loop:
        own["sample"] = ratio(sampled[f"{OURS}: loop"], loop)
        overhead = ratio(loop, network)
        own["overhead"] = {k: v - 1 for k, v in overhead.items()}
    ratios[name] = own
    return [
        shown(spread(trained[name]), scale=1e3) if name in trained else None,
        shown(own["train"]) if "train" in own and name != OURS else None,
        shown(spread(loop), scale=1e3 / calls) if loop else None,
        shown(own["sample"]) if loop and name != OURS else None,
        shown(own["overhead"], 2, 100) if loop else None,
    ]


def quality(shape: Shape, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """(numbers, page) of equal wall-clock training on the digits, in turns of some seconds."""
    splits = Digits(name="digits").load()
    images = ImageDataset(splits.train)
    extract = load_extractor("classifier", splits.train)
    train, test = (extract(s.x).values for s in splits)
    budget, n = 60 * options.minutes, min(options.n, len(splits.train))
    found = contenders_for_quality(shape, splits, images, options, budget)
    spent, done = dict.fromkeys(found, 0.0), dict.fromkeys(found, 0)
    streams = {k: batches(images, shape.batch, options.seed) for k in found}
    with bar() as progress:
        task = progress.add_task("training in turns", total=budget * len(found))
        while any(s < budget for s in spent.values()):
            for name, contender in found.items():
                until = min(spent[name] + options.turn, budget)
                while spent[name] < until:
                    start = time.perf_counter()
                    contender.step(*next(streams[name]))
                    taken = time.perf_counter() - start
                    spent[name], done[name] = spent[name] + taken, done[name] + 1
                    progress.advance(task, taken)
    rows = []
    label = torch.arange(n) % shape.classes
    for name, contender in found.items():
        for calls in options.calls:
            figures = [figure(contender, label, calls, s, extract, test) for s in range(3)]
            rows.append({"name": name, "steps": done[name], "calls": calls, "frechet": figures})
    floor = real_floor(frechet_distance, train, test, n)
    cells = [
        [r["name"], r["steps"], r["calls"], f"{statistics.mean(r['frechet']):.3g} ± "
         f"{statistics.stdev(r['frechet']):.2g}"] for r in rows
    ]  # fmt: skip
    cells.append(["real training images (floor)", None, None, f"{floor:.3g}"])
    page = "\n\n".join([
        f"# Quality after {options.minutes:g} minutes of training each, on the digits",
        f"Frechet distance to {len(test)} test images, n={n}, one training each, three seeds of "
        f"samples, mean ± standard deviation; batch {shape.batch}; all class-conditional. Ours "
        "samples by DPM-Solver++ 2M, the peers by their DDIM. Peers are trained at their "
        "documented learning rate and at others.",
        markdown(["", "training steps", "network calls", "Frechet distance"], cells),
        "\n".join(f"- {k}: {c.about}." for k, c in found.items()),
    ])  # fmt: skip
    return {"quality": rows, "floor": floor, "n": n, "seconds": spent}, page


def contenders_for_quality(
    shape: Shape, splits: Splits, images: ImageDataset, options: Any, budget: float
) -> dict[str, Contender]:
    """Fresh contenders whose learning-rate schedules end when the time does."""
    trial, _ = build(shape, splits)
    stream = batches(images, shape.batch, options.seed)
    timers = {k: stopwatch(lambda c=c: c.step(*next(stream)), 5) for k, c in trial.items()}
    seconds = interleaved(timers, 3, label="steps that fit")
    fit = {k: max(1, round(budget / statistics.median(v))) for k, v in seconds.items()}
    found: dict[str, Contender] = {}
    for name in trial:
        base = dataclasses.replace(shape, steps=fit[name], seed=options.seed)
        if name == OURS:
            found[name] = Ours(base, splits)
            continue
        size = parameters(trial[OURS].network), flops(trial[OURS], shape)
        for rate in options.peer_rates:
            pair = matched(name, dataclasses.replace(base, peer_rate=rate), size)
            assert pair is not None
            pair[0].about += f"; here at a rate of {rate:g}"
            found[f"{name}, rate {rate:g}"] = pair[0]
    return found


def batches(images: ImageDataset, size: int, seed: int) -> Any:
    """The same stream of (images in [0, 1], labels) for everyone."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(images), generator=generator)
        for rows in order[: len(order) // size * size].split(size):
            batch = images.gather(rows)
            yield batch["x"] / 255, batch["label"]


def figure(
    contender: Contender, label: Tensor, calls: int, seed: int, extract: Any, test: np.ndarray
) -> float:
    """Frechet distance of samples of the averaged weights."""
    torch.manual_seed(1000 + seed)
    contender.seed = 1000 + seed  # ours does not read torch's own generator
    with contender.averaged():
        x = torch.cat([contender.sample(part, calls) for part in label.split(500)])
    pixels = (255 * x).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return frechet_distance(extract(pixels).values, test)


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="cifar", help="sizes to begin with")
    for name in ("size", "image-channels", "channels", "blocks", "head-channels", "batch"):
        add(f"--{name}", type=int)
    add("--mult", type=int, nargs="+", help="channels of each level, in multiples")
    add("--sample-batch", type=int, help="by default the training batch")
    add("--calls", type=int, nargs="+", default=[20], help="network calls of a sample")
    add("--repeats", type=int, default=11, help="interleaved rounds")
    add("--inner", type=int, default=3, help="training steps a round")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--bf16", action="store_true", help="bfloat16 autocast for all")
    add("--quality", action="store_true", help="equal wall-clock training instead of timing")
    add("--minutes", type=float, default=3.0, help="of training each")
    add("--turn", type=float, default=5.0, help="seconds of a turn")
    add("--peer-rates", type=float, nargs="+", default=[1e-4, 1e-3])
    add("--n", type=int, default=1438, help="samples a figure of quality")
    add("--seed", type=int, default=0)
    add("--name", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    if options.quality:
        options.preset, options.device = "digits", "cpu"
    sizes = PRESETS[options.preset] | {
        k: v for k in PRESETS["cifar"] if (v := getattr(options, k)) is not None
    }
    shape = Shape(**sizes, classes=10, seed=options.seed, device=options.device)
    options.sample_batch = options.sample_batch or shape.batch
    body, text = (quality if options.quality else speed)(shape, options)
    kind = "quality" if options.quality else f"speed_{options.preset}"
    settings = vars(options) | {"shape": dataclasses.asdict(shape)}
    path = write_result(options.name or f"image_peers_{kind}", settings, body, text)
    print(f"{text}\n\nwrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    command(main, options_parser().format_help())
