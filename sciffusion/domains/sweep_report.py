"""What a sweep of lengths leaves: a page, its curve, its numbers, and a table in the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from sciffusion.atomic import atomic_path
from sciffusion.domains.sweep import Sweep
from sciffusion.io.config import to_yaml
from sciffusion.viz.curves import figure_bytes
from sciffusion.viz.report import Report
from sciffusion.viz.sweep import sweep_figure
from sciffusion.viz.write import write_whole

AXIS, OWN = "length of the average, sigma_rel", "the run's own average"


def numbers(found: Sweep, errors: Sequence[float]) -> dict[str, Any]:
    """All of it, for JSON.

    Args:
        errors: to expect of each length's average.
    """
    curve = [
        {"length": length, "mean": float(line.mean()), "by_seed": line.tolist(), "error": error}
        for length, line, error in zip(found.lengths, found.curve, errors, strict=True)
    ]
    return {
        "metric": found.row.name,
        "better": found.row.better,
        "length": found.length,
        "verdict": found.verdict,
        "seeds": list(found.choose),
        "report_seeds": list(found.report),
        "curve": curve,
        "own": found.own.tolist(),
        "result": found.result.tolist(),
        "own_result": found.own_result.tolist(),
        **found.table().to_dict(),
    }


def write_sweep(
    found: Sweep,
    errors: Sequence[float],
    title: str,
    folder: Path,
    settings: Mapping[str, Any],
) -> None:
    """report.html, curve.png and ema.json.

    Args:
        errors: to expect of each length's average.
        title: of the page.
        settings: of the evaluation.

    Raises:
        InputError: they cannot be written.
    """
    table, content = found.table(), numbers(found, errors)
    figure = sweep_figure(
        found.lengths, found.curve, found.own, found.chosen, (AXIS, found.row.name, OWN)
    )
    picture = figure_bytes(figure)
    write_whole(picture, folder / "curve.png")
    # JSON has no word for what is not finite
    plain = json.loads(json.dumps(content | {"settings": dict(settings)}), parse_constant=str)
    with atomic_path(folder / "ema.json") as temporary:
        temporary.write_text(json.dumps(plain, indent=1))
    page = Report(title)
    page.add_section("Chosen").add_text(found.verdict).add_table(table)
    seeds = ", ".join(map(str, found.choose))
    page.add_section("Curve").add_figure(
        picture, f"Seeds {seeds}, by which the length was chosen; the table is of other seeds."
    )
    page.add_section("Lengths").add_keyvalues(
        {
            f"{c['length']:.3g}": f"{c['mean']:.4g}; error of the average {c['error']:.1e}"
            for c in content["curve"]
        }
    )
    page.add_section("Configuration").add_code(to_yaml(dict(settings)), "how it was measured")
    page.write(folder / "report.html")
    console = Console()
    console.width = max(console.width, 120)
    console.print(table.rich())
    print(f"sciffusion: {found.verdict}")
    print(f"sciffusion: wrote {folder / 'report.html'}, ema.json and curve.png")
