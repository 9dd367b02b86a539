"""Backbones drawn and measured: what the benchmarks of proteins share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.progress import Progress

from sciffusion.core.denoiser import Denoiser
from sciffusion.core.samplers import Sampler
from sciffusion.domains.protein.domain import ProteinDomain
from sciffusion.domains.protein.generate import Generator
from sciffusion.domains.protein.metrics import evaluate_backbones
from sciffusion.domains.protein.requests import Settings


def measured(
    domain: ProteinDomain,
    denoiser: Denoiser,
    sampler: Sampler,
    asked: Settings,
    how: Mapping[str, Any],
    progress: Progress,
) -> dict[str, Any]:
    """The table of samples beside the domain's held-out chains, none left out, and its title."""
    generator = Generator(domain, denoiser, sampler, asked)
    count = generator.request.total
    task = progress.add_task("drawing", total=count)
    start = time.perf_counter()
    drawn = generator(range(count), tick=lambda k: progress.advance(task, k))
    samples = [d.backbone for d in sorted(drawn, key=lambda d: d.number)]
    seconds = time.perf_counter() - start
    table = evaluate_backbones(samples, domain.data.val, domain.data.train, how)
    progress.remove_task(task)
    return {
        "title": table.title,
        "seconds": seconds,
        "rows": {row.name: vars(row) for row in table.rows},
    }


def cell(row: Mapping[str, Any]) -> str:
    """A figure with its interval."""
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
