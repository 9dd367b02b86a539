"""A domain's own recipe in this process: so many steps, or so many seconds of processor time."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from common import bar, kept
from rich.progress import Progress

from sciffusion.core.denoiser import Denoiser
from sciffusion.data.order import Ordered
from sciffusion.domains.base import Domain, build_denoiser
from sciffusion.training.fit import make_module
from sciffusion.training.module import DiffusionModule

WARMUP = 100
"""Steps, where the learning rate follows the time that is spent."""


def trained(
    domain: Domain,
    config: Mapping[str, Any],
    progress: Progress,
    steps: int | None = None,
    seconds: float | None = None,
    bf16: bool = False,
    watch: Callable[[DiffusionModule], None] | None = None,
) -> tuple[Denoiser, dict[str, Any]]:
    """(denoiser with averaged weights, what the training was); give `steps` or `seconds`.

    Args:
        watch: called after each step.
    """
    config = dict(config)
    batch_size, seed = config["trainer"]["batch_size"], config["seed"]
    module = make_module(domain, config)
    optimizer = module.configure_optimizers()
    stream = Ordered(domain.train_set(), seed, batch_size)
    began, spent, step, losses = time.perf_counter(), 0.0, 0, []
    task = progress.add_task("training", total=steps or seconds)
    while step < steps if steps else spent < (seconds or 0):
        start = time.process_time()
        batch = stream.__getitems__(list(range(step * batch_size, (step + 1) * batch_size)))
        if steps:
            rate = module.rate(step, steps)
        else:  # the share of the time that is gone is that of the steps
            warm = min(1.0, (step + 1) / WARMUP)
            rate = module.rate(int(1e6 * spent / (seconds or 1)), 10**6) * warm
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = module.loss_of(batch, step).mean()
        optimizer.zero_grad()
        loss.backward()
        most = config["trainer"]["clip"] or float("inf")  # 0 is off
        torch.nn.utils.clip_grad_norm_(module.parameters(), most)
        optimizer.step()
        for average in module.averages:
            average.update(module.denoiser.network)
        if watch is not None:
            watch(module)
        losses.append(float(loss.detach()))
        taken = time.process_time() - start
        spent, step = spent + taken, step + 1
        progress.update(
            task, advance=1 if steps else taken, description=f"training, loss {losses[-1]:.3f}"
        )
    denoiser = build_denoiser(domain, config)
    denoiser.network.load_state_dict(module.denoiser.network.state_dict() | module.ema.shadow)
    about = {
        "steps": step,
        "loss": float(np.mean(losses[-100:])),
        "parameters": sum(p.numel() for p in denoiser.network.parameters()),
        "seconds": time.perf_counter() - began,
    }
    return denoiser.eval(), about


def each_variant(
    variants: Mapping[str, tuple[str, list[str]]],
    options: argparse.Namespace,
    prefix: str,
    work: Callable[[list[str], Progress], dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """What `work` finds for each variant's settings, where asked (`only`) or done before.

    Args:
        variants: what each is, and its settings.
        options: with `only`; the others are the recipe.
        prefix: of the files in the cache.
        work: given the settings and a progress bar.
    """
    torch.set_num_threads(1)
    results = {}
    recipe = {k: v for k, v in vars(options).items() if k not in ("only", "name")}
    with bar() as progress:
        for name, (title, settings) in variants.items():

            def told(title: str = title, settings: list[str] = settings) -> dict[str, Any]:
                progress.log(title)
                return {"settings": settings} | work(settings, progress)

            wanted = name in (options.only or variants)
            found = kept(f"{prefix}-{name}", (settings, recipe), told if wanted else None)
            if found is not None:
                results[name] = found
    return results
