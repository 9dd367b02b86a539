"""Files of structures turned into a store (data.preparation): PDB, mmCIF, archives and entries.

Chains have the clusters of a list, or, where none gives them, are clustered by sequence identity
once all are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import Bio

import sciffusion
from sciffusion import resources
from sciffusion.data import preparation
from sciffusion.data.preparation import Preparation, check_workers, given, versions
from sciffusion.domains.protein.lists import UNCLUSTERED, Names, read_names
from sciffusion.domains.protein.readers import inside, pieces, split
from sciffusion.domains.protein.records import Piece
from sciffusion.domains.protein.shards import Notes, Order, Recipe, chunks, work
from sciffusion.domains.protein.store import SCHEMA, read_store, write_clusters
from sciffusion.errors import InputError


@dataclass(frozen=True)
class Source(preparation.Source):
    """Where chains come from."""

    cut: Callable[[Path], Iterable[Piece]] = split
    inside: Callable[[Path], list[Path]] = inside


def run(config: Mapping[str, Any]) -> None:
    """The command: prepare what a configuration asks for and say what came of it.

    Raises:
        InputError: nothing to read or to write to, or no chain that can be used.
    """
    from sciffusion.domains.protein.deposits import deposit

    files = given(config)
    check_workers(config["workers"])
    recipe = Recipe(**{f.name: config[f.name] for f in fields(Recipe)})
    lost: list[str] = []
    only = None if config["ids"] is None else read_names(config["ids"])
    if files is not None:
        source, out = Source(files), Path(config["out"])
    else:
        cache = resources.cache_dir()
        root = cache if config["root"] is None else Path(config["root"])
        only = only or read_names(resources.path("datasets", "pdb/chains.csv"))
        folder = root / config["dataset"]
        found, lost = deposit(config["dataset"], only.entries, folder)
        if not found:
            raise InputError(f"no entry can be had; the first: {lost[0]}")
        source = Source([folder], lambda _: pieces(found), lambda _: found)
        out = Path(config["out"] or cache / "proteins" / config["dataset"])
    clusters = only if config["clusters"] is None else read_names(config["clusters"])
    notes = prepare(source, out, Order(recipe, only, clusters), config["workers"], lost)
    models = f"; {notes.models} further models were not used" if notes.models else ""
    print(
        f"sciffusion: {out} holds {notes.records} chains of {notes.residues} residues, of "
        f"{notes.chains} among {notes.read} chains in {notes.structures} files{models}"
        + (f"; {len(notes.left_out)} lines in {out / 'left_out.txt'}" if notes.left_out else "")
    )


def prepare(
    source: Source,
    out: Path,
    order: Order | None = None,
    workers: int | None = None,
    lost: Sequence[str] = (),
) -> Notes:
    """Make the store, go on with it, or leave it as it is where it is done.

    Args:
        lost: lines on what there is no file of.

    Raises:
        InputError: see `run`; or `out` holds a store of something else.
    """
    order = order or Order(Recipe())

    def finish(out: Path, notes: Notes) -> None:
        notes.left_out[:0] = lost
        if order.recipe.identity and not _has_clusters(order.clusters):
            from sciffusion.domains.protein.clusters import cluster

            sequences = [record.sequence for record in read_store(out)]
            write_clusters(out, cluster(sequences, order.recipe.identity))

    lists = {"ids": order.only, "clusters": order.clusters}
    told = {
        "recipe": asdict(order.recipe),
        "lists": {k: None if names is None else dict(names.facts) for k, names in lists.items()},
        "versions": versions(sciffusion, Bio),
        "format": SCHEMA.metadata[b"sciffusion"].decode(),
    }
    way = Preparation("protein", Notes, chunks, work, order, told, finish)
    return way.run(source, out, workers)


def _has_clusters(names: Names | None) -> bool:
    return names is not None and any(k != UNCLUSTERED for k in names.clusters.values())
