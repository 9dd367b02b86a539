"""A figure of merit against a setting: every repeat a dot, their mean a line, the choice marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from sciffusion.viz.curves import LOG_ABOVE, PALETTE


def sweep_figure(
    x: Sequence[float],
    y: Float[np.ndarray, "x repeats"],
    beside: Float[np.ndarray, " repeats"],
    chosen: int,
    names: tuple[str, str, str],
) -> Figure:
    """The curve.

    Args:
        x: values of the setting, on a log axis.
        y: the figure at each, for each repeat.
        beside: the same of what is compared with, drawn across.
        chosen: place in x.
        names: of x, of y, and of what is compared with.
    """
    figure = Figure(figsize=(7, 3.6), dpi=144, layout="constrained")
    axes = figure.add_subplot()
    mean = y.mean(1)
    for repeat in y.T:
        axes.plot(x, repeat, ".", color=PALETTE[0], alpha=0.35)
    axes.plot(x, mean, "-", color=PALETTE[0], linewidth=1.8, label="mean over seeds")
    if np.isfinite(beside).all():
        axes.axhspan(beside.min(), beside.max(), color=PALETTE[1], alpha=0.15, linewidth=0)
        axes.axhline(beside.mean(), color=PALETTE[1], linewidth=1.4, label=names[2])
    axes.plot(
        x[chosen], mean[chosen], "o", color=PALETTE[2], ms=8, label=f"chosen: {x[chosen]:.3g}"
    )
    finite = y[np.isfinite(y)]
    if finite.size and finite.min() > 0 and finite.max() > LOG_ABOVE * finite.min():
        axes.set_yscale("log")
    axes.set_xscale("log")
    axes.set_xticks(x, [f"{v:.3g}" for v in x], fontsize="small")
    axes.set_xticks([], minor=True)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure
