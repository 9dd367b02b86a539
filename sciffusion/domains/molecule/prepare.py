"""Files of molecules turned into a store (data.preparation): SDF, xyz, SMILES and data sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import rdkit

import sciffusion
from sciffusion import resources
from sciffusion.data import preparation
from sciffusion.data.preparation import Preparation, check_workers, given, versions
from sciffusion.domains.molecule.readers import split
from sciffusion.domains.molecule.records import Piece
from sciffusion.domains.molecule.shards import Notes, Recipe, chunks, work
from sciffusion.domains.molecule.store import SCHEMA


@dataclass(frozen=True)
class Source(preparation.Source):
    """Where molecules come from."""

    cut: Callable[[Path], Iterable[Piece]] = split


def run(config: Mapping[str, Any]) -> None:
    """The command: prepare what a configuration asks for and say what came of it.

    Raises:
        InputError: nothing to read or to write to, or no record that can be used.
    """
    from sciffusion.domains.molecule.deposits import deposit

    files = given(config)
    recipe = Recipe(**{f.name: config[f.name] for f in fields(Recipe) if f.name != "elements"})
    if config["elements"] is not None:
        symbols = config["elements"]
        symbols = symbols.strip("[]").split(",") if isinstance(symbols, str) else symbols
        recipe = replace(recipe, elements=tuple(str(symbol).strip() for symbol in symbols))
    cache = resources.cache_dir()
    if files is not None:
        source, out = Source(files), Path(config["out"])
    elif config["dataset"] == "molecules":
        source, out = embedded(), embedded_path(recipe)
    else:
        root = cache if config["root"] is None else Path(config["root"])
        source = deposit(config["dataset"], root / config["dataset"])
        out = cache / "molecules" / config["dataset"]
    out = Path(config["out"] or out)
    check_workers(config["workers"])
    notes = prepare(source, out, recipe, config["workers"])
    print(
        f"sciffusion: {out} holds {notes.molecules} molecules with {notes.conformers} conformers; "
        f"{len(notes.left_out)} of {notes.read} records left out"
        + (f", see {out / 'left_out.txt'}" if notes.left_out else "")
    )


def prepare(source: Source, out: Path, recipe: Recipe, workers: int | None = None) -> Notes:
    """Make the store, go on with it, or leave it as it is where it is done.

    Raises:
        InputError: see `run`; or `out` holds a store of something else.
    """
    told = {
        "recipe": asdict(recipe),
        "versions": versions(sciffusion, rdkit),
        "format": SCHEMA.metadata[b"sciffusion"].decode(),
    }
    way = Preparation("molecule", Notes, lambda p: chunks(p, recipe), work, recipe, told)
    return way.run(source, out, workers)


EMBEDDED = Recipe()
"""How the conformers of the embedded molecules are made."""


def embedded() -> Source:
    """The molecules that come with the library."""
    return Source([resources.path("datasets", "molecules/molecules.csv")])


def embedded_path(recipe: Recipe = EMBEDDED, cache: Path | None = None) -> Path:
    """Where their store is kept; another list, recipe or RDKit has another place."""
    told = json.dumps(
        [embedded().facts(), asdict(recipe), rdkit.__version__, sciffusion.__version__]
    )
    name = hashlib.sha256(told.encode()).hexdigest()[:12]
    return (cache or resources.cache_dir()) / "molecules" / f"embedded-{name}"


def embedded_store(cache: str | Path | None = None) -> Path:
    """The store of the embedded molecules; made on first use, in less than a minute on two cores.

    Args:
        cache: by default `resources.cache_dir()`.
    """
    out = embedded_path(cache=None if cache is None else Path(cache))
    prepare(embedded(), out, EMBEDDED)
    return out
