"""report.html of a run: curves, samples, a denoising trajectory, the table, the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sciffusion.core.parameterization import times
from sciffusion.domains.base import Evaluation, load_model
from sciffusion.domains.sampling import draw
from sciffusion.io.build import build
from sciffusion.io.run import Run
from sciffusion.viz.curves import curves, figure_bytes, read_columns
from sciffusion.viz.grid import save_grid
from sciffusion.viz.report import Report

FRAMES = 20


def trajectory(domain: Any, denoiser: Any, sampler: Any, seed: int, n: int) -> list[Any]:
    """Pictures of n samples on their way from noise to data, at unit size."""
    shape, cond = domain.prior_cond(torch.arange(n), {})
    out = sampler(denoiser, shape, cond, seed, n, trajectory=True)
    keep = torch.linspace(0, len(out.trajectory) - 1, min(FRAMES, len(out.trajectory))).long()
    frames = []
    for k in keep.tolist():
        c = denoiser.coefficients(out.times[k], out.x.ndim)
        frames.append(domain.preview(domain.decode(times(1 / c.norm, out.trajectory[k]), cond)))
    return frames


def write_report(run: Run, found: Evaluation | None = None, to: Run | None = None) -> Path:
    """The page of a run, and samples/grid.png; returns the picture's path.

    Args:
        found: what was measured.
        to: where they go; by default into the run.

    Raises:
        InputError: the run cannot be read.
    """
    to = to or run
    domain, denoiser, config = load_model(run.path)
    sampler = build(config["sampler"])
    picture = domain.preview(
        draw(domain, denoiser, sampler, domain.shown, config["seed"], processes=(0, 1))
    )
    grid = save_grid(to.samples / "grid.png", picture)

    page = Report(f"{run.path.resolve().name}: {domain.name}")
    if found is not None:
        page.add_section("Measures").add_table(found.table)
        if found.show is not None:
            found.show(page)
    page.add_section("Samples").add_figure(
        picture, f"Seed {config['seed']}, {type(sampler).__name__} in {sampler.steps} steps."
    )
    frames = trajectory(domain, denoiser, sampler, config["seed"], min(40, domain.shown))
    page.add_section("Denoising").add_frames(frames, "From noise to data, shown at unit size.")
    if run.metrics.exists() and len(run.metrics.read_text().splitlines()) > 2:  # two rows: a curve
        figure = curves(read_columns(run.metrics), ["loss"], title="Training loss")
        page.add_section("Training").add_figure(figure_bytes(figure, "svg"), "Loss by step.")
    if (curve := run.path / "ema" / "curve.png").exists():
        page.add_section("Length of the average").add_figure(
            curve.read_bytes(), "Post-hoc EMA; ema/report.html tells the rest."
        )
    if run.config.exists():
        page.add_section("Configuration").add_code(run.config.read_text(), "config.yaml")
    page.write(to.report)
    return grid
