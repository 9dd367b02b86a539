"""Autoguidance by a weaker network of the same kind.

    python benchmarks/autoguidance.py --run RUN --weak WEAKER
    python benchmarks/autoguidance.py --weak EARLY domain=protein data=backbones data.root=... n=16

Each scale is measured by the domain's own `evaluate`, by the metric that the domain names for
`python -m sciffusion.ema`; the scale that does best on some seeds is reported on others, beside no
guidance. EARLY may be an earlier average (`python -m sciffusion.ema step=`), a smaller network or
one trained for less. Settings of `evaluate` follow. Each measure is kept in benchmarks/cache.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from common import HERE, kept, markdown, weights_digest, write_result

from sciffusion import evaluate
from sciffusion.domains.base import domain_class
from sciffusion.domains.sweep import Sweep, sweep
from sciffusion.io.command import command
from sciffusion.io.run import load_shared
from sciffusion.metrics.table import Row
from sciffusion.sample import source


def measured(options: argparse.Namespace, scale: float | None, seed: int) -> Row:
    """The domain's metric at a scale, None for no guidance."""
    kind = domain_class(load_shared(options.run)["domain"])
    quick = [f"{k}={json.dumps(v)}" for k, v in kind.quick.items()]
    guided = [] if scale is None else [f"guidance.by={options.weak}", f"guidance.by_scale={scale}"]
    settings = [*quick, *options.settings, *guided, f"seed={seed}"]
    out = HERE / "cache" / "autoguidance" / options.title  # several may run at once

    def found() -> dict[str, Any]:
        evaluate.main([f"run={options.run}", *settings, f"out={out}"])
        rows = json.loads((out / "metrics.json").read_text())["rows"]
        return next(r for r in rows if r["name"] == kind.headline)

    weights = [weights_digest(options.run), weights_digest(options.weak)]
    return Row(**kept("autoguidance", (settings, weights), found))


def page(found: Sweep, options: argparse.Namespace) -> str:
    curve = [
        [f"scale {scale:g}", *(f"{v:.4g}" for v in line), f"{line.mean():.4g}"]
        for scale, line in zip(found.lengths, found.curve, strict=True)
    ]
    curve.append([found.other, *(f"{v:.4g}" for v in found.own), f"{found.own.mean():.4g}"])
    cells = [[r.name, r.value, f"{r.low:.4g} to {r.high:.4g}", r.n] for r in found.table().rows]
    return "\n\n".join([
        f"# Autoguidance, {options.title}: {found.row.name} ({found.row.better} is better)",
        f"{options.about} {found.verdict}",
        markdown(["", "mean", "95% interval", "seeds"], cells),
        "By which the scale was chosen:",
        markdown(["", *(f"seed {s}" for s in found.choose), "mean"], curve),
        f"Floor, real data: {found.row.floor:.3g}." if found.row.floor is not None else "",
    ])  # fmt: skip


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("settings", nargs="*", help="of evaluate: domain=, data=, n=, sampler.steps= ...")
    add("--run", help="by default the packaged weights of domain=")
    add("--weak", required=True, help="a run, or weights, to be led away from")
    add("--scales", nargs="+", type=float, default=[1.25, 1.5, 2.0])
    add("--seeds", nargs="+", type=int, default=[1, 2], help="to choose the scale by")
    add("--report-seeds", nargs="+", type=int, default=[3, 4, 5, 6])
    add("--about", default="", help="a sentence on the weaker network")
    add("--name", help="of the result files; by default autoguidance_DOMAIN")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_intermixed_args(arguments)
    options.run = options.run or source(options.settings)
    options.settings = [s for s in options.settings if not s.startswith("domain=")]
    options.title = load_shared(options.run)["domain"]
    found = sweep(
        lambda scale, seed: measured(options, scale, seed), options.scales, options.seeds,
        options.report_seeds, word="scale", other="no guidance",
    )  # fmt: skip
    text = page(found, options)
    numbers = {"row": asdict(found.row), "curve": found.curve.tolist(), "none": found.own.tolist(),
               "result": found.result.tolist(), "none_result": found.own_result.tolist(),
               "verdict": found.verdict, "scale": found.length}  # fmt: skip
    name = options.name or f"autoguidance_{options.title}"
    path = write_result(name, vars(options), numbers, text)
    print(f"{text}\n\nwrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    command(main, options_parser().format_help())
