"""Likelihood: exactness on known laws, and bits of images.

    python benchmarks/likelihood.py [--quick] [--images 32]

1. Known densities: the largest error of log p, in nats, over draws of a mixture and of a centred
   cloud, under several schedules; and data to latent and back.
2. Images: a digits network trained here, bits per dimension by exact and Hutchinson divergence,
   beside the discrete bound. It is kept in benchmarks/cache.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from common import bar, kept, markdown, write_result
from rich.progress import Progress
from training import trained

from sciffusion.core import tables
from sciffusion.core.analytic import GaussianMixture
from sciffusion.core.likelihood import ProbabilityFlow, round_trip
from sciffusion.core.schedules import EDM, VP, RectifiedFlow
from sciffusion.core.spaces import ZeroCoM
from sciffusion.domains.image.bits import bits_row
from sciffusion.domains.image.domain import ImageDomain
from sciffusion.domains.likelihood import measure, table
from sciffusion.io.command import command
from sciffusion.io.config import compose

QUICK = {"draws": 20, "images": 3, "minutes": 0.05, "bound_steps": 10}
SCHEDULES = {
    "rectified flow": RectifiedFlow,
    "zero terminal SNR": lambda: tables.zero_terminal_snr(tables.linear()),
    "EDM, sigma_max 1e4": lambda: EDM(1e4),
    "VP": VP,
}
"""VP leaves some data at t = 1: its model begins in plain noise, and is not quite the mixture."""


def known_densities(n: int) -> list[dict[str, Any]]:
    """Largest errors over n draws."""
    means = torch.tensor([[-2.0, -1.0], [1.5, 1.5], [1.0, -2.0]])
    covs = torch.tensor(
        [[[0.2, 0.1], [0.1, 0.3]], [[0.1, 0.0], [0.0, 0.4]], [[0.3, -0.15], [-0.15, 0.2]]]
    )
    centring = torch.kron(torch.eye(5) - 0.2, torch.eye(3)).double()
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(2, 15, 15, generator=generator, dtype=torch.float64)
    cloud = centring @ (0.02 * root @ root.mT + 0.05 * torch.eye(15)) @ centring
    middle = torch.randn(2, 15, generator=generator, dtype=torch.float64) @ centring
    now, rows = torch.tensor(0.0, dtype=torch.float64), []
    for name, make in SCHEDULES.items():
        worlds = {
            "mixture of 3 in 2-D": (GaussianMixture(means, covs, make()), (2,)),
            "2 centred clouds of 5 points": (
                GaussianMixture(middle, cloud, make(), noise_cov=centring, space=ZeroCoM()), (5, 3)
            ),
        }  # fmt: skip
        for world, (oracle, shape) in worlds.items():
            x = oracle.draw(n, 1).view(n, *shape)
            flow = ProbabilityFlow(oracle)
            out = flow.log_prob(x)
            error = (out.value - oracle.log_prob(x, now)).abs()
            rows.append({
                "world": world, "schedule": name, "dim": float(out.dim[0]),
                "error": float(error.max()), "round_trip": float(round_trip(flow, x).max()),
                "calls": out.nfe,
            })  # fmt: skip
    return rows


def images(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Bits per dimension of held-out digits."""
    settings = ["seed=0", "trainer.accelerator=cpu", "trainer.batch_size=64", "model.channels=32"]
    config = compose("train", settings)
    domain = ImageDomain(config["data"])
    denoiser, about = trained(domain, config, progress, seconds=60 * options.minutes)
    asked = compose("likelihood", ["run=none", f"n={options.images}", f"batch={options.images}"])
    rows = []
    for changes in (
        {"divergence": "exact", "probes": 1},
        {"divergence": "hutchinson", "probes": 1},
        {"divergence": "hutchinson", "probes": 4},
        {"divergence": "hutchinson", "probes": 1, "tolerance": 1e-6},
    ):
        how = asked | changes
        start = time.perf_counter()
        found = measure(domain, denoiser, how, torch.device("cpu"))
        seconds = time.perf_counter() - start
        shown = table(domain, found, how)
        trip = float(found.trip.max())
        rows.append(
            how | asdict(shown.rows[0]) | {"seconds": seconds, "round_trip": trip}
            | {"error": None if np.isnan(found.error).any() else float(
                np.median(found.error / found.dim) / np.log(2))}
        )  # fmt: skip
        progress.log(f"digits, {changes['divergence']}: {shown.rows[0].value:.3f} bits")
    how = {"bits_steps": options.bound_steps, "bits_images": options.images, "seed": 0}
    bound = bits_row(denoiser, domain, how)
    return about | {"rows": rows, "bound": asdict(bound)}


def page(found: dict[str, Any], options: argparse.Namespace) -> str:
    lines = [
        "# Likelihood",
        "Known densities: largest error of log p over draws, in nats, and of data to latent and "
        "back. Under VP the model begins in plain noise where the mixture leaves a trace of data.",
        markdown(
            ["world", "schedule", "dimensions", "error of log p", "round trip", "calls"],
            [[r["world"], r["schedule"], r["dim"], r["error"], r["round_trip"], r["calls"]]
             for r in found["known"]],
        ),
    ]  # fmt: skip
    if digits := found["images"]:
        rows = [
            [r["divergence"] + (f", {r['probes']} probes" if r["divergence"][0] == "h" else ""),
             f"{r['tolerance']:.0e}", f"{r['value']:.3f} ({r['low']:.3f} to {r['high']:.3f})",
             r["error"], f"{r['seconds']:.0f}", r["round_trip"]]
            for r in digits["rows"]
        ]  # fmt: skip
        bound = digits["bound"]
        rows.append(
            [f"discrete bound, T = {options.bound_steps}", None,
             f"{bound['value']:.3f} ({bound['low']:.3f} to {bound['high']:.3f})", None, None, None]
        )  # fmt: skip
        lines += [
            f"Digits, {digits['steps']} training steps, {options.images} held-out images, bits per "
            "dimension of 8-bit pixels by uniform dequantisation, 95% intervals over images.",
            markdown(["divergence", "tolerance", "bits/dim", "its standard error, an image",
                      "seconds", "round trip"], rows),
        ]  # fmt: skip
    return "\n\n".join(lines)


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="small numbers throughout: does it run?")
    add("--draws", type=int, default=200, help="of each known density")
    add("--images", type=int, default=32, help="held-out digits")
    add("--minutes", type=float, default=1.0, help="of training on digits")
    add("--bound-steps", type=int, default=250, help="T of the discrete bound")
    add("--name", default="likelihood", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    if options.quick:
        vars(options).update(QUICK, name=f"{options.name}_quick")
    torch.set_num_threads(1)
    recipe = {k: vars(options)[k] for k in ("images", "minutes", "bound_steps")}
    with bar() as progress:
        found = {
            "known": known_densities(options.draws),
            "images": kept("likelihood-images", recipe, lambda: images(options, progress)),
        }
    text = page(found, options)
    path = write_result(options.name, vars(options), found, text)
    print(f"{text}\n\nwrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    command(main, options_parser().format_help())
