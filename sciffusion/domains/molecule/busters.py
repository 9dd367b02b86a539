"""PoseBusters' checks of molecules without a protein (Buttenschoen et al. 2024), conformer by one.

Its `mol` configuration as it stands: chemistry, bond lengths, angles and clashes against distance
geometry bounds, flat and puckered rings, double bonds, and the UFF energy against an ensemble of 50
ETKDG conformers. A check that cannot be made counts as failed. About 0.2 s a conformer and 3 s a
molecule, so a share of the conformers is looked at.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from rdkit import rdBase

from sciffusion.data.pool import Progress, shared_out
from sciffusion.domains.molecule.chem import to_mol
from sciffusion.domains.molecule.graph import MolGraph, Record

MISSING = 'not measured: pip install "sciffusion[posebusters]"'


def installed() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec("posebusters") is not None


@cache
def _buster() -> Any:
    """The checker; each ensemble is embedded once, in this process alone."""
    import yaml
    from posebusters import PoseBusters

    logging.getLogger("posebusters").setLevel(logging.ERROR)
    config = yaml.safe_load((resources.files("posebusters") / "config" / "mol.yml").read_text())
    energies = [m for m in config["modules"] if m["function"] == "energy_ratio"]
    for module in energies[:-1]:  # listed twice; the last one names the check
        config["modules"].remove(module)
    for module in energies:
        module["parameters"]["num_threads"] = 1
    return PoseBusters(config)


def checks(
    graph: MolGraph, coords: Float[np.ndarray, "k n 3"]
) -> dict[str, Bool[np.ndarray, " k"]]:
    """Whether each conformer passes, by check."""
    if not len(coords):
        return {}
    mols = [to_mol(graph, x) for x in coords]
    with rdBase.BlockLogs():
        table = _buster().bust(mols)
    return {
        name.replace("_", " "): np.array([value is True or value is np.True_ for value in column])
        for name, column in table.items()
    }


def _both(pair: tuple[Record, Record]) -> tuple[dict, dict]:
    samples, references = pair
    return checks(samples.graph, samples.coords), checks(references.graph, references.coords)


def pose_checks(
    pairs: Sequence[tuple[Record, Record]],
    workers: int | None = 1,
    progress: Progress | None = None,
) -> tuple[dict[str, Bool[np.ndarray, " n"]], dict[str, Bool[np.ndarray, " m"]]]:
    """`checks` of all (samples, references), put end to end; both of a molecule in one process."""
    found = shared_out(_both, pairs, workers, progress)
    return _joined([a for a, _ in found]), _joined([b for _, b in found])


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    parts = [p for p in parts if p]
    return {name: np.concatenate([p[name] for p in parts]) for name in (parts[0] if parts else ())}


def passed(found: dict[str, Bool[np.ndarray, " n"]]) -> Bool[np.ndarray, " n"]:
    """Conformers that pass all checks."""
    return np.all(list(found.values()), axis=0) if found else np.zeros(0, bool)
