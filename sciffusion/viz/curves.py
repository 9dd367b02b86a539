"""Training curves: the raw numbers in the back, their running mean in front."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from sciffusion.errors import InputError
from sciffusion.viz.write import write_whole

LOG_ABOVE = 20.0  # a curve that spans more than this factor is drawn on a log axis
SMOOTH_SHARE = 0.02  # half-width of the running mean, as a share of the curve
SMOOTH_FROM = 50  # points; shorter curves are shown as they are
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito


def read_columns(path: str | os.PathLike[str]) -> dict[str, Float[np.ndarray, " rows"]]:
    """The columns of a CSV of numbers with a header; an empty cell becomes NaN.

    Raises:
        InputError: the file cannot be read, has no rows, or a cell is not a number.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            head = next(reader, [])
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}; give a CSV file of numbers") from error
    if not head or not rows:
        raise InputError(f"{path}: no rows of numbers under a header; has training begun?")
    table = np.full((len(rows), len(head)), np.nan)
    for i, (line, row) in enumerate(rows):
        if len(row) != len(head):
            raise InputError(
                f"{path}, line {line}: {len(row)} cells under {len(head)} headings; mend the line"
            )
        for j, cell in enumerate(row):
            try:
                table[i, j] = float(cell) if cell.strip() else np.nan
            except ValueError:
                raise InputError(
                    f"{path}, line {line}, column {head[j]!r}: {cell!r} is not a number; mend it"
                ) from None
    return {name: table[:, j] for j, name in enumerate(head)}


def curves(
    columns: Mapping[str, Sequence[float] | Float[np.ndarray, " rows"]],
    y: Sequence[str],
    x: str = "step",
    title: str = "",
) -> Figure:
    """Columns against another one; rows where either is not finite are left out.

    Args:
        columns: numbers by name, as `read_columns` gives them.
        y: which to draw.
        x: the horizontal axis.
        title: above the plot.

    Raises:
        InputError: a column is missing or has no finite number.
    """
    figure = Figure(figsize=(7, 3.6), dpi=144, layout="constrained")
    axes = figure.add_subplot()
    drawn = []
    for i, name in enumerate(y):
        across, up = _finite_pairs(columns, x, name)
        color = PALETTE[i % len(PALETTE)]
        if len(up) >= SMOOTH_FROM:
            axes.plot(across, up, color=color, alpha=0.25, linewidth=0.8)
            axes.plot(across, running_mean(up), color=color, linewidth=1.8, label=name)
        else:
            axes.plot(across, up, color=color, linewidth=1.8, marker="o", ms=3.5, label=name)
        drawn.append(up)
    values = np.concatenate(drawn)
    if values.min() > 0 and values.max() > LOG_ABOVE * values.min():
        axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.grid(True, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if len(y) == 1:
        axes.set_ylabel(y[0])
    else:
        axes.legend(frameon=False)
    if title:
        axes.set_title(title, loc="left", fontsize="medium")
    return figure


def running_mean(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Mean over a window of 4% of the curve, centred, shorter at the ends."""
    reach = max(1, round(SMOOTH_SHARE * len(values)))
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    begin, end = np.maximum(place - reach, 0), np.minimum(place + reach + 1, len(values))
    return (total[end] - total[begin]) / (end - begin)


def figure_bytes(figure: Figure, kind: Literal["png", "svg"] = "png") -> bytes:
    """The figure as a file."""
    buffer = io.BytesIO()
    # no date inside: the same numbers give the same file
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def save_curves(path: str | os.PathLike[str], figure: Figure) -> Path:
    """Write a figure as PNG or SVG, by the path's suffix.

    Raises:
        InputError: another suffix, or the path cannot be written.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise InputError(f"{path}: curves are written as .png or .svg; name the file so")
    return write_whole(figure_bytes(figure, "svg" if kind == "svg" else "png"), path)


def _finite_pairs(
    columns: Mapping[str, Sequence[float] | np.ndarray], x: str, y: str
) -> tuple[np.ndarray, np.ndarray]:
    for name in (x, y):
        if name not in columns:
            raise InputError(f"no column {name!r}; there are: {', '.join(columns)}")
    across, up = (np.asarray(columns[name], dtype=np.float64) for name in (x, y))
    kept = np.isfinite(across) & np.isfinite(up)
    if not kept.any():
        raise InputError(f"column {y!r} holds no finite number beside {x!r}; nothing to draw")
    return across[kept], up[kept]
