"""EDM2's network beside ADM's U-Net: the same images, equal parameters, equal training time.

    python benchmarks/edm2.py [--minutes 10] [--seeds 3] [--only NAME ...] [--quick]
    python benchmarks/edm2.py --data data=cifar10 data.root=DIR --name edm2_cifar10

Time is this process's processor time on one thread; learning rates follow the share of it that is
spent. The width of EDM2's embedding is chosen to match the parameters of ADM's. Each training is
drawn from with the recipe's sampler and the averaged weights, and kept in benchmarks/cache: a
killed benchmark goes on.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from common import markdown, write_result
from rich.progress import Progress
from torch import Tensor, nn
from training import each_variant, trained

from sciffusion.core.denoiser import Denoiser
from sciffusion.core.rng import Rng
from sciffusion.domains.base import build_denoiser
from sciffusion.domains.image.domain import ImageDomain
from sciffusion.domains.image.features import load_extractor
from sciffusion.domains.sampling import draw
from sciffusion.io.build import build
from sciffusion.io.command import command
from sciffusion.io.config import compose
from sciffusion.metrics.floors import real_floor
from sciffusion.metrics.frechet import frechet_distance
from sciffusion.nn.magnitude import weight_error
from sciffusion.training.fit import prepared

EDM2 = ["experiment=edm2", "rate.warmup=1"]
SLOW = "rate.reference=166667"
"""In millionths of the time, as `trained` tells it: a sixth of it, as the experiment has."""
COSINE = ["model=edm2_unet", "optimizer=adam", "trainer.clip=0", "rate.warmup=1", "rate.lr=8.0e-2"]
LOSS = ["loss=edm2", "loss.times.mean=-1.2", "loss.times.std=1.2"]
"""Learned uncertainty at the noise levels of ADM's recipe."""
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "adm": ("ADM's U-Net, its recipe (EDM's loss, AdamW, cosine)", []),
    "edm2": ("EDM2 (learned uncertainty, Adam, inverse square root)", [*EDM2, SLOW]),
    "edm2-cosine": ("EDM2 with the cosine and ADM's noise levels", [*COSINE, *LOSS]),
    "edm2-network": ("EDM2's network and optimizer with EDM's loss and the cosine", COSINE),
    "adm-loss": ("ADM's U-Net with EDM2's loss", LOSS),
}
"""What it is, and the settings that make it."""


def composed(options: argparse.Namespace, settings: Sequence[str], *more: str) -> dict[str, Any]:
    return compose(
        "train",
        ["domain=image", *settings, *options.data, "trainer.accelerator=cpu",
         f"trainer.batch_size={options.batch}", *more],
    )  # fmt: skip


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def matched(options: argparse.Namespace, domain: ImageDomain, settings: list[str]) -> list[str]:
    """The embedding's width at which the network has ADM's number of parameters, as a setting.

    Channels stay ADM's: convolutions, where the time goes, are then the same.
    """

    def size(settings: Sequence[str], *more: str) -> int:
        return parameters(build_denoiser(domain, composed(options, settings, *more)).network)

    if not {"experiment=edm2", "model=edm2_unet"} & set(settings):
        return []
    wanted = size([])
    one, two = (size(settings, f"model.embedding={w}") for w in (64, 128))
    width = max(8, 8 * round((64 + 64 * (wanted - one) / (two - one)) / 8))
    return [f"model.embedding={width}"]


def feature_sizes(denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Any) -> list[float]:
    """Root mean square of the features after each block, in order."""
    network, found = denoiser.network, []
    hooks = [
        b.register_forward_hook(lambda m, i, y: found.append(float(y.square().mean().sqrt())))
        for b in (*network.down, *network.mid, *network.up)
    ]
    with torch.no_grad():
        denoiser(x_t, t, cond)
    for hook in hooks:
        hook.remove()
    return found


def looked_into(domain: ImageDomain, denoiser: Denoiser, config: dict[str, Any]) -> dict[str, Any]:
    """Sizes of features at training's noise levels, and of weights after a training forward."""
    index = torch.arange(min(128, len(domain.train_set())))
    x0, cond = domain.encode(domain.train_set().gather(index), None)
    rng, loss = Rng(7, index), build(prepared(config["loss"], domain, config["trainer"]["steps"]))
    t = loss.times.sample(rng, denoiser.schedule)
    eps = denoiser.space.noise(rng, "train noise", tuple(x0.shape[1:]), cond, x0.dtype)
    c = denoiser.coefficients(t, x0.ndim)
    x_t = (c.alpha * x0 + c.sigma * eps).to(x0.dtype)
    sizes = feature_sizes(denoiser, x_t, t, cond)
    denoiser.train()
    denoiser(x_t, t, cond)
    error = weight_error(denoiser.network)
    denoiser.eval()
    return {"features": sizes, "weight_error": error}


def measured(
    options: argparse.Namespace, settings: list[str], progress: Progress
) -> dict[str, Any]:
    """Each training seed: what it was, the Frechet distances of some seeds of samples."""
    domain = ImageDomain(composed(options, settings)["data"])
    train, test = domain.data
    extract = load_extractor(options.extractor, train)
    real, n = extract(test.x).values, min(options.n, len(train.x))
    runs, width = [], matched(options, domain, settings)
    for seed in range(options.seeds):
        config = composed(options, settings, *width, f"seed={seed}")
        denoiser, about = trained(
            domain, config, progress, seconds=60 * options.minutes, bf16=options.bf16
        )
        sampler, figures = build(config["sampler"]), []
        for k in range(options.sample_seeds):
            samples = draw(domain, denoiser, sampler, n, 1000 + k)
            figures.append(frechet_distance(extract(samples.x).values, real))
        progress.log(f"seed {seed}: Frechet distance {statistics.mean(figures):.4g}")
        runs.append(about | {"frechet": figures} | looked_into(domain, denoiser, config))
    floor = real_floor(frechet_distance, extract(train.x).values, real, n)
    return {"runs": runs, "floor": floor, "n": n, "width": width, "test": len(test.x)}


def page(results: dict[str, dict], options: argparse.Namespace) -> str:
    def about(values: list[float], digits: int = 3) -> str:
        middle = f"{statistics.mean(values):.{digits}g}"
        return middle + (f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else "")

    cells = []
    for name, found in results.items():
        runs = found["runs"]
        features = [v for r in runs for v in r["features"]]
        cells.append(
            [VARIANTS[name][0], f"{runs[0]['parameters'] / 1e6:.3f}",
             round(statistics.mean(r["steps"] for r in runs)),
             about([statistics.mean(r["frechet"]) for r in runs]),
             f"{min(features):.2f} to {max(features):.2f}",
             f"{max(r['weight_error'] for r in runs):.1e}" if "edm2" in name[:4] else None]
        )  # fmt: skip
    first = next(iter(results.values()))
    cells.append(["real training images (floor)", None, None, f"{first['floor']:.3g}", None, None])
    return "\n\n".join([
        "# EDM2 beside ADM's U-Net: equal parameters, equal training time",
        f"{' '.join(options.data) or 'digits'}; {options.minutes:g} minutes of one core each, "
        f"batches of {options.batch}, {'bfloat16 autocast' if options.bf16 else 'float32'}. "
        f"Frechet distance ({options.extractor} features) to {first['test']} test images, "
        f"n={first['n']}, the mean of {options.sample_seeds} seeds of samples, over "
        f"{options.seeds} trainings (mean ± standard deviation). Features: root mean square after "
        "each block, least and most. Weights: largest relative deviation of a stored row from "
        "unit size, or of an effective row from its gain, after a training forward.",
        markdown(["", "M parameters", "steps", "Frechet distance", "features", "weights"], cells),
    ])  # fmt: skip


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data", nargs="*", default=[], help="settings, such as data=cifar10 model.channels=32")
    add("--only", nargs="+", choices=list(VARIANTS), help="train these, where not done yet")
    add("--minutes", type=float, default=10.0, help="of one core, each training")
    add("--batch", type=int, default=128)
    add("--seeds", type=int, default=3, help="trainings")
    add("--sample-seeds", type=int, default=3, help="draws of each training")
    add("--n", type=int, default=1438, help="samples of a draw")
    add("--extractor", default="classifier", help="classifier, rotation or inception")
    add("--bf16", action=argparse.BooleanOptionalAction, default=False)
    add("--quick", action="store_true", help="small numbers, to see that it runs")
    add("--name", default="edm2", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    if options.quick:
        options.minutes, options.seeds, options.sample_seeds, options.n = 0.05, 1, 1, 100
        options.only = options.only or ["adm", "edm2"]
        options.name = "edm2_quick" if options.name == "edm2" else options.name
    results = each_variant(VARIANTS, options, "edm2", partial(measured, options))
    text = page(results, options)
    path = write_result(options.name, vars(options), {"variants": results}, text)
    print(f"{text}\n\nwrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    command(main, options_parser().format_help())
