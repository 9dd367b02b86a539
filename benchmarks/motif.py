"""Motif scaffolding on standard problems: is the motif held, is it joined, does anything clash?

    python benchmarks/motif.py [--run RUN] --problems FOLDER [--n 10] [--only NAME ...] [--quick]

FOLDER holds PDB files with a contig in REMARK 999 (Genie 2's 24 problems of one motif and 6 of
several). Nothing is left out or drawn again. A motif is held where each group's N, CA, C and O lie
within 1 A RMSD; a design is joined where every junction's C-N and CA-CA are those of a peptide bond
and nothing of the motif clashes (`domains.protein.motif_measures`). Each problem is kept in
benchmarks/cache, so a killed benchmark goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import bar, kept, markdown, weights_digest, write_result

from sciffusion.domains.base import choose_device, load_model
from sciffusion.domains.protein.domain import ProteinDomain
from sciffusion.domains.protein.generate import Generator
from sciffusion.domains.protein.motif import Motif
from sciffusion.domains.protein.readers import inside
from sciffusion.domains.protein.requests import Settings
from sciffusion.domains.protein.validity import CIS, TRANS, ca_distances, clashing, near
from sciffusion.errors import InputError
from sciffusion.io.build import build
from sciffusion.io.command import command
from sciffusion.sample import source

QUICK = {"n": 2, "steps": 40}
HEAD = (
    "problem", "residues", "motif", "groups", "junctions", "worst RMSD, A", "held", "junctions ok",
    "no clash", "joined", "total kept", "all CA-CA valid", "s a design",
)  # fmt: skip


def solved(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """A problem's designs, each with its measures."""
    domain, denoiser, config = load_model(options.run)
    assert isinstance(domain, ProteinDomain)
    sampler = build(config["sampler"])
    sampler.steps = options.steps
    device = choose_device(options.device)
    settings = Settings(n=options.n, motif=path, seed=options.seed)
    generator = Generator(domain, denoiser.to(device), sampler, settings, device)
    motif = generator.request.motif
    assert motif is not None
    start = time.perf_counter()
    designs = [d.backbone for d in generator(range(options.n))]
    seconds = (time.perf_counter() - start) / options.n
    return {
        "problem": path.stem,
        "contig": str(motif.contig),
        "total": motif.total,
        "motif_residues": len(motif.kept),
        "seconds": seconds,
        "designs": [measured(generator, d) for d in sorted(designs, key=lambda d: d.name)],
    }


def measured(generator: Generator, design: Any) -> dict[str, Any]:
    _, note = generator.grafting(design)
    apart = ca_distances(design)
    valid = near(apart, TRANS) | near(apart, CIS)
    del note["motif"]
    return note | {
        "ca_ca_valid": float(valid.mean()),
        "residues_that_clash": float(clashing(design).mean()),
    }


def row(found: dict[str, Any]) -> list[Any]:
    """Of the table."""
    designs = found["designs"]
    low, high = found["total"]

    def share(of: Sequence[bool]) -> str:
        return f"{100 * np.mean(of):.0f}%"

    sizes = [d["residues"] for d in designs]
    return [
        found["problem"],
        f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{sizes[0]}",
        found["motif_residues"],
        len(designs[0]["rmsd"]),
        len(designs[0]["junctions"]),
        f"{max(max(d['rmsd'].values()) for d in designs):.3f}",
        share([d["holds"] for d in designs]),
        share([all(j["valid"] for j in d["junctions"]) for d in designs]),
        share([not d["clashes"] for d in designs]),
        share([d["joined"] for d in designs]),
        share([low <= size <= high for size in sizes]),
        share([d["ca_ca_valid"] for d in designs]),
        f"{found['seconds']:.1f}",
    ]


def summary(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Over all designs of all problems, and how many problems reach what is asked."""

    def mean(name: str) -> list[float]:
        return [float(np.mean([d[name] for d in r["designs"]])) for r in results]

    held, joined = mean("holds"), mean("joined")
    return {
        "problems": len(results),
        "held": float(np.mean(held)),
        "joined": float(np.mean(joined)),
        "problems_held_in_90%": sum(h >= 0.9 for h in held),
        "problems_joined_in_80%": sum(j >= 0.8 for j in joined),
    }


def page(results: Sequence[dict[str, Any]], options: argparse.Namespace) -> str:
    s = summary(results)
    share = [f"{100 * s['held']:.1f}%", f"{100 * s['joined']:.1f}%"]
    many = [f"{s['problems_held_in_90%']} of {s['problems']}",
            f"{s['problems_joined_in_80%']} of {s['problems']}"]  # fmt: skip
    return "\n\n".join([
        "# Motif scaffolding",
        f"{options.n} designs of each problem, {options.steps} steps, zero-shot with an "
        f"unconditional network ({options.weights}); none left out, none drawn again. Held: each "
        "group within 1 A RMSD. Joined: every junction valid, no clash of the motif.",
        markdown(
            ["", "held", "joined"],
            [["designs", *share], ["problems, held in 90% and joined in 80% of designs", *many]],
        ),
        markdown(HEAD, map(row, results)),
    ])  # fmt: skip


def options_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--run", help="a trained run of the protein domain; by default the packaged weights")
    add("--problems", required=True, type=Path, help="a folder of PDB files with REMARK 999")
    add("--only", nargs="+", help="these problems, by name")
    add("--n", type=int, default=10, help="designs of each")
    add("--steps", type=int, default=100, help="of the sampler")
    add("--seed", type=int, default=0)
    add("--device", default="auto")
    add("--quick", action="store_true", help="2 designs of each in 40 steps")
    add("--name", default="motif", help="of the result files")
    return parser


def main(arguments: Sequence[str]) -> None:
    options = options_parser().parse_args(arguments)
    if options.quick:
        vars(options).update(QUICK)
    files = [p for p in inside(options.problems) if options.only is None or p.stem in options.only]
    if not files:
        raise InputError(f"{options.problems} holds no problem {options.only or ''}")
    for path in files:
        Motif.of(path)  # all of them can be read before any is drawn
    options.run = options.run or source(["domain=protein"])
    options.weights = weights_digest(options.run)
    recipe = (options.weights, options.n, options.steps, options.seed)
    results = []
    with bar() as progress:
        task = progress.add_task("problems", total=len(files))
        for path in files:
            about = (*recipe, hashlib.sha256(path.read_bytes()).hexdigest())
            found = kept(f"motif-{path.stem}", about, lambda path=path: solved(options, path))
            assert found is not None
            results.append(found)
            progress.advance(task)
    text = page(results, options)
    body = {"summary": summary(results), "problems": results}
    path = write_result(options.name, vars(options), body, text)
    print(f"{text}\n\nwrote {path} and {path.with_suffix('.md')}")


if __name__ == "__main__":
    command(main, options_parser().format_help())
