"""The README's first line, timed and measured: python benchmarks/digits.py [--run DIR]

Trains the default digits model from nothing (or takes a trained run), draws 1,000 samples of seed 1
and measures them; writes benchmarks/results/digits.json and .md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import markdown, write_result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", help="a trained run, to be measured only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, seconds = options.run or str(Path(folder) / "digits"), {}
        jobs = {"train": ["domain=image"], "evaluate": []}
        for name in ["evaluate"] if options.run else jobs:
            start = time.perf_counter()
            command = [sys.executable, "-m", f"sciffusion.{name}", f"run={run}", *jobs[name]]
            subprocess.run(command, check=True)
            seconds[name] = time.perf_counter() - start
        rows = json.loads((Path(run) / "metrics.json").read_text())["rows"]
        steps = (Path(run) / "metrics.csv").read_text().splitlines()[-1].split(",")[0]
    table = markdown(
        ["measure", "figure", "95% interval", "n", "floor (real data)"],
        [
            [r["name"], r["value"], f"{r['low']:.4g} to {r['high']:.4g}", r["n"], r["floor"]]
            for r in rows
        ],
    )
    spent = ", ".join(f"{k} {v:.0f} s" for k, v in seconds.items())
    text = f"# Digits after {steps} steps\n\n{table}\n\nTime: {spent}."
    path = write_result("digits", vars(options), {"seconds": seconds, "rows": rows}, text)
    print(text, f"\n\nwrote {path}")


if __name__ == "__main__":
    main()
