"""Figures of a report: distributions of generated backbones beside those of real chains.

Each function gives a `Figure`; `sciffusion.viz.curves.figure_bytes` makes it a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from sciffusion.domains.protein import distributions as dist
from sciffusion.domains.protein.backbone import CA, Backbone
from sciffusion.domains.protein.secondary import HELIX, STRAND, psea
from sciffusion.domains.protein.validity import expected_links
from sciffusion.errors import InputError
from sciffusion.viz.curves import PALETTE

OWN, REAL = PALETTE[0], "#8b8f94"
DECADES = 1e3
"""Densities are drawn down to this factor below the highest."""

Points = Callable[[Backbone], tuple[np.ndarray, np.ndarray]]


def ramachandran_plot(samples: Sequence[Backbone], references: Sequence[Backbone] = ()) -> Figure:
    """Density of (phi, psi), samples beside references.

    Raises:
        InputError: no finite sample.
    """
    figure = _maps(samples, references, dist.ramachandran, (dist.TURN_BINS, dist.TURN_BINS))
    for axes in figure.axes[:-1]:
        axes.set(xlabel="φ (degrees)", xticks=range(-180, 181, 90), yticks=range(-180, 181, 90))
        axes.set_aspect("equal")
    figure.axes[0].set_ylabel("ψ (degrees)")
    return figure


def ca_map_plot(samples: Sequence[Backbone], references: Sequence[Backbone] = ()) -> Figure:
    """Density of (angle, dihedral) along the CA trace, samples beside references.

    Raises:
        InputError: no finite sample.
    """
    figure = _maps(samples, references, dist.ca_map, (dist.BEND_BINS, dist.TURN_BINS))
    for axes in figure.axes[:-1]:
        axes.set(xlabel="CA angle (degrees)", yticks=range(-180, 181, 90))
    figure.axes[0].set_ylabel("CA dihedral (degrees)")
    return figure


def radius_plot(samples: Sequence[Backbone], references: Sequence[Backbone] = ()) -> Figure:
    """Radius of gyration against length, with the law of globular chains.

    Raises:
        InputError: no finite sample.
    """
    figure, axes = _empty()
    sets = _named(samples, references)
    _scatter(axes, sets, lambda b: (len(b), dist.radius_of_gyration(b)))
    lengths = [len(b) for _, backbones, _ in sets for b in backbones]
    across = np.linspace(min(lengths), max(lengths), 100)
    law = dist.usual_radius(across)
    axes.plot(across, law, color="#222222", linewidth=1.2, label="2.2 N$^{0.38}$")
    axes.set(xlabel="residues", ylabel="radius of gyration (Å)")
    radii = [dist.radius_of_gyration(b) for b in sets[-1][1]]
    top = max(float(law.max()), *radii)
    if top > 4 * law.max():  # something that has come apart
        axes.set_yscale("log")
    axes.legend(frameon=False)
    return figure


def content_plot(samples: Sequence[Backbone], references: Sequence[Backbone] = ()) -> Figure:
    """Shares of helix and strand by P-SEA, a point a structure.

    Raises:
        InputError: no finite sample.
    """

    def shares(b: Backbone) -> tuple[float, float]:
        codes = psea(b.coords[:, CA], expected_links(b))
        return float((codes == HELIX).mean()), float((codes == STRAND).mean())

    figure, axes = _empty((5, 4.4))
    _scatter(axes, _named(samples, references), shares)
    axes.plot([0, 1], [1, 0], color="#cccccc", linewidth=0.8, zorder=0)
    axes.set(xlabel="helix share", ylabel="strand share", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="upper right")
    return figure


def novelty_plot(
    novelty: Float[np.ndarray, " n"],
    usual: Float[np.ndarray, " m"] = np.zeros(0),  # noqa: B008
) -> Figure:
    """Histogram of TM-scores to the nearest training chain, with that of held-out chains.

    Raises:
        InputError: there are no figures.
    """
    if not len(novelty):
        raise InputError("novelty was not measured: nothing to draw; set novelty=50")
    figure, axes = _empty()
    bins = np.linspace(0, 1, 41).tolist()
    for name, values, color, filled in (
        ("held-out chains", usual, REAL, False),
        ("samples", novelty, OWN, True),
    ):
        if len(values):
            axes.hist(
                np.clip(values, 0, 1),
                bins,
                weights=np.full(len(values), 1 / len(values)),
                histtype="stepfilled" if filled else "step",
                color=color,
                alpha=0.75 if filled else 1,
                linewidth=1.8,
                zorder=1 if filled else 2,
                label=f"{name} ({len(values)})",
            )
    axes.set(xlabel="TM-score to the nearest training chain", ylabel="share", xlim=(0, 1))
    axes.legend(frameon=False, loc="upper left")
    return figure


def _named(
    samples: Sequence[Backbone], references: Sequence[Backbone]
) -> list[tuple[str, list[Backbone], str]]:
    """(name, finite structures, colour) of both sets, samples last: they lie on top."""
    sets = []
    for name, backbones, color in (("real chains", references, REAL), ("samples", samples, OWN)):
        finite = [b for b in backbones if np.isfinite(b.coords).all()]
        if finite:
            sets.append((name, finite, color))
    if not sets or sets[-1][0] != "samples":
        raise InputError("no sample is finite: nothing to draw")
    return sets


def _empty(size: tuple[float, float] = (7, 3.6)) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, dpi=144, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _scatter(
    axes: Axes,
    sets: Sequence[tuple[str, Sequence[Backbone], str]],
    point: Callable[[Backbone], tuple[float, float]],
) -> None:
    for name, backbones, color in sets:
        x, y = np.array([point(b) for b in backbones]).T
        axes.scatter(
            x, y, s=16, color=color, alpha=0.7, linewidths=0, label=f"{name} ({len(backbones)})"
        )


def _maps(
    samples: Sequence[Backbone],
    references: Sequence[Backbone],
    points: Points,
    bins: tuple[np.ndarray, np.ndarray],
) -> Figure:
    """Two densities on one logarithmic scale: 1 is what angles at random would have."""
    sets = _named(samples, references)[::-1]
    densities = []
    for _, backbones, _ in sets:
        x, y = (np.concatenate(v) for v in zip(*map(points, backbones), strict=True))
        inside = np.clip(x, bins[0][0], bins[0][-1])
        counts = np.histogram2d(inside, y, bins)[0]
        densities.append(counts / max(counts.sum(), 1) * counts.size)
    highest = max(d.max() for d in densities) or 1.0
    figure = Figure(figsize=(3.6 * len(sets) + 0.9, 3.8), dpi=144, layout="constrained")
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    norm = LogNorm(highest / DECADES, highest)
    for axes, (name, backbones, _), density in zip(panels, sets, densities, strict=True):
        shown = np.ma.masked_less_equal(density.T, 0)
        mesh = axes.pcolormesh(*bins, shown, norm=norm, cmap="viridis")
        axes.set_title(f"{name} ({len(backbones)})", loc="left", fontsize="medium")
        axes.set_facecolor("#f4f4f6")
    figure.colorbar(mesh, ax=list(panels), label="density over uniform", shrink=0.9)
    return figure
