"""What a generator of conformers is compared with: RDKit's ETKDGv3, alone, relaxed, and clustered.

All take a molecule's graph (with its stereo, never its coordinates) and are seeded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float
from rdkit import rdBase
from rdkit.Chem import rdDistGeom

from sciffusion.data.pool import Progress, shared_out
from sciffusion.domains.molecule.chem import to_mol
from sciffusion.domains.molecule.energy import relaxed
from sciffusion.domains.molecule.graph import MolGraph, Record
from sciffusion.errors import InputError

Coords = Float[np.ndarray, "k n 3"]

POOL, MOST_POOL = 10, 2000
"""ETKDG + cluster chooses from this many times the conformers asked for, at most so many."""


def etkdg(graph: MolGraph, n: int, seed: int = 0) -> Coords:
    """n conformers of ETKDGv3 as RDKit gives them.

    Where some fail, they are tried once more from random coordinates; what still fails is missing.
    """
    mol = to_mol(graph)
    parameters = rdDistGeom.ETKDGv3()
    # RDKit multiplies the seed by the conformer's number: 0 would give n times the same one, and
    # the conformers of seed 2 would be among those of seed 1.
    parameters.randomSeed = int(np.random.default_rng(seed).integers(1 << 18, 1 << 20))
    found: list[np.ndarray] = []
    for random_start in (False, True):
        if len(found) < n:
            parameters.useRandomCoords = random_start
            with rdBase.BlockLogs():
                rdDistGeom.EmbedMultipleConfs(mol, n - len(found), parameters)
            found += [c.GetPositions() for c in mol.GetConformers()]
    return np.stack(found).astype(np.float32) if found else np.zeros((0, len(graph), 3), np.float32)


def etkdg_mmff(graph: MolGraph, n: int, seed: int = 0) -> Coords:
    """The same, relaxed with MMFF94 (as they are where it has no parameters)."""
    return relaxed(graph, etkdg(graph, n, seed))[2]


def etkdg_cluster(graph: MolGraph, n: int, seed: int = 0) -> Coords:
    """ETKDGv3 + MMFF94 for min(10 n, 2000) conformers (never fewer than n), clustered to n.

    After Zhou et al. 2023 (arXiv:2302.07061): heavy atoms are laid on the first conformer, k-means
    with n centres groups them, and the conformer nearest each centre is taken.
    """
    import torch  # here, so that processes which only embed start at once
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    from sciffusion.core.geometry import kabsch

    pool = etkdg_mmff(graph, max(n, min(POOL * n, MOST_POOL)), seed)
    if len(pool) <= n:
        return pool
    heavy = torch.from_numpy(pool[:, graph.heavy].astype(np.float64))
    rows = kabsch(heavy, heavy[:1].expand_as(heavy)).flatten(1).numpy()
    with threadpool_limits(1):
        distance = KMeans(n, n_init=1, random_state=seed).fit_transform(rows)
    return pool[np.unique(distance.argmin(0))]


@dataclass(frozen=True)
class Peer:
    """A generator.

    Attributes:
        label: as tables name it.
        draw: (graph, n, seed) -> at most n conformers (K, N, 3) in Angstrom.
    """

    label: str
    draw: Callable[[MolGraph, int, int], Coords]


PEERS = {
    "etkdg": Peer("ETKDGv3", etkdg),
    "mmff": Peer("ETKDGv3 + MMFF94", etkdg_mmff),
    "cluster": Peer("ETKDGv3 + MMFF94 + cluster", etkdg_cluster),
}


def peer_records(
    name: str,
    graphs: Sequence[MolGraph],
    numbers: Sequence[int],
    seed: int = 0,
    workers: int | None = 1,
    progress: Progress | None = None,
) -> tuple[list[Record], float]:
    """(conformers of each molecule, seconds of one core that they took).

    Args:
        name: in `PEERS`.
        graphs: molecules.
        numbers: conformers asked of each.
        seed: of all; molecule i draws from (seed, i).
        workers: processes; None takes one a core.
        progress: called with the number of molecules finished.

    Raises:
        InputError: an unknown name.
    """
    if name not in PEERS:
        raise InputError(f"unknown peer {name!r}: choose {', '.join(PEERS)}")
    seeds = np.random.SeedSequence(seed).generate_state(len(graphs))
    jobs = list(zip(graphs, numbers, seeds.tolist(), strict=True))
    found = shared_out(partial(_timed, name=name), jobs, workers, progress)
    records = [
        Record(graph, coords, source=PEERS[name].label)
        for graph, (coords, _) in zip(graphs, found, strict=True)
    ]
    return records, sum(seconds for _, seconds in found)


def _timed(job: tuple[MolGraph, int, int], name: str) -> tuple[Coords, float]:
    start = time.process_time()
    return PEERS[name].draw(*job), time.process_time() - start
