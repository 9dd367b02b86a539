"""`evaluate` for proteins: draw backbones of like lengths as held-out chains and measure them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from sciffusion.core.denoiser import Denoiser
from sciffusion.core.samplers import Sampler
from sciffusion.domains.base import Evaluation
from sciffusion.domains.protein.backbone import Backbone
from sciffusion.domains.protein.domain import ProteinDomain
from sciffusion.domains.protein.generate import Generator
from sciffusion.domains.protein.metrics import Findings, ProteinMeasures, find
from sciffusion.domains.protein.plots import (
    ca_map_plot,
    content_plot,
    novelty_plot,
    radius_plot,
    ramachandran_plot,
)
from sciffusion.domains.protein.report import sections
from sciffusion.domains.protein.requests import Settings
from sciffusion.domains.sampling import world_size
from sciffusion.viz.curves import figure_bytes
from sciffusion.viz.report import Report


def evaluate(
    domain: ProteinDomain,
    denoiser: Denoiser,
    sampler: Sampler,
    settings: Mapping[str, Any],
    device: torch.device,
) -> Evaluation | None:
    """n backbones, none of them left out, beside held-out chains.

    Raises:
        InputError: settings that cannot be used, or data that are too few.
    """
    if world_size()[0] > 0:
        return None
    how = ProteinMeasures.of(settings)
    asked = Settings(n=settings["n"], length=settings["lengths"], seed=settings["seed"])
    generator = Generator(domain, denoiser, sampler, asked, device)
    train, held_out = domain.data.train, domain.data.val
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        total = generator.request.total
        task = bar.add_task("drawing backbones", total=total)
        start = time.perf_counter()
        drawn = generator(range(total), tick=lambda k: bar.advance(task, k))
        samples = [d.backbone for d in sorted(drawn, key=lambda d: d.number)]
        seconds = time.perf_counter() - start
        task = bar.add_task("measuring", total=how.steps(samples, held_out, train))
        found = find(samples, held_out, train, how, seconds, lambda k: bar.advance(task, k))
        task = bar.add_task("a movie", total=1)
        (first,) = generator([0], trajectory=True, tick=lambda k: bar.advance(task, k))
    movie = [frame.coords for frame in first.frames]
    return Evaluation(found.table, lambda page: _show(page, samples, held_out, found, movie))


def _show(
    page: Report,
    samples: Sequence[Backbone],
    held_out: Sequence[Backbone],
    found: Findings,
    movie: Sequence[Any],
) -> None:
    """Backbones to turn, then what their angles and sizes look like beside real ones."""
    sections(page, samples, held_out, movie)
    page.add_section("Beside real chains")
    for plot, caption in (
        (ramachandran_plot, "Torsions of the backbone."),
        (ca_map_plot, "Angle and dihedral of the CA trace."),
        (radius_plot, "Size by length."),
        (content_plot, "Helix and strand (P-SEA)."),
    ):
        page.add_figure(figure_bytes(plot(samples, held_out), "svg"), caption)
    if len(found.novelty):
        figure = novelty_plot(found.novelty, found.usual)
        page.add_figure(figure_bytes(figure, "svg"), "The most alike training chain.")
