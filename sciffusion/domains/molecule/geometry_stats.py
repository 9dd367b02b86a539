"""Distributions of bond lengths, angles and torsions, as Jensen-Shannon distances by type.

A type is told by elements: a bond by its two and its order, an angle by its three and the centre's
hybridisation, a torsion about a rotatable bond by its four and the hybridisation of the two inner
ones. JS distance = sqrt(divergence in bits): 0 equal, 1 disjoint. Types are averaged, weighted by
how often they occur. It never reaches 0 in finite sets, so it stands beside a floor at equal n: one
half of each molecule's references against the other half, as a like number of samples is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from sciffusion.domains.molecule.graph import ATOM_FEATURES, MolGraph, Record
from sciffusion.metrics.js import js_divergence

Type = tuple[int, ...]
Values = dict[Type, list[np.ndarray]]

SP = 2
LEAST = 50
"""A type counts where both sets have this many values of it."""

# Bins over the range; what lies beyond falls into the first or the last.
BINS = {
    "bonds": np.linspace(0.8, 2.6, 181),        # Angstrom
    "angles": np.linspace(60.0, 180.0, 61),     # degrees
    "torsions": np.linspace(-180.0, 180.0, 37),
}  # fmt: skip
KINDS = tuple(BINS)
_HYBRIDISATION = list(ATOM_FEATURES).index("hybridisation")


@dataclass(frozen=True)
class Terms:
    """Bonds, angles and torsions of a molecule, by type.

    Attributes:
        index: kind -> type -> (m, 2 to 4) atoms.
    """

    index: Mapping[str, Mapping[Type, Int[np.ndarray, "m _"]]]

    @classmethod
    def of(cls, graph: MolGraph) -> Terms:
        """All bonds and angles, hydrogens too; torsions of heavy atoms about rotatable bonds.

        A bond is rotatable if it is single, in no ring, and neither end is linear.
        """
        z, hybrid = graph.z.tolist(), graph.atoms[:, _HYBRIDISATION].tolist()
        beside: list[list[int]] = [[] for _ in z]
        for i, j in graph.bonds.tolist():
            beside[i].append(j)
            beside[j].append(i)
        found: dict[str, dict[Type, list]] = {kind: defaultdict(list) for kind in KINDS}
        rows = zip(graph.bonds.tolist(), graph.bond_features.tolist(), strict=True)
        for (i, j), (order, _, ring) in rows:
            found["bonds"][(*sorted((z[i], z[j])), order)].append((i, j))
            if order == 1 and not ring and SP not in (hybrid[i], hybrid[j]):
                for a in (k for k in beside[i] if k != j and z[k] > 1):
                    for b in (k for k in beside[j] if k != i and z[k] > 1):
                        one = (z[a], z[i], hybrid[i], hybrid[j], z[j], z[b])
                        found["torsions"][min(one, one[::-1])].append((a, i, j, b))
        for centre, around in enumerate(beside):
            for p, a in enumerate(around):
                for b in around[p + 1 :]:
                    low, high = sorted((z[a], z[b]))
                    found["angles"][low, z[centre], hybrid[centre], high].append((a, centre, b))
        return cls({k: {t: np.array(rows) for t, rows in v.items()} for k, v in found.items()})

    def histograms(
        self, coords: Float[np.ndarray, "k n 3"]
    ) -> dict[str, dict[Type, Int[np.ndarray, " bins"]]]:
        """Counts of each type over the conformers."""
        found: dict[str, dict[Type, np.ndarray]] = {}
        for kind, types in self.index.items():
            bins = BINS[kind]
            found[kind] = {}
            for name, atoms in types.items():
                values = MEASURE[kind](*np.moveaxis(coords[:, atoms], 2, 0))
                found[kind][name] = np.histogram(np.clip(values, bins[0], bins[-1]), bins)[0]
        return found


def length(a: Float[np.ndarray, "*m 3"], b: Float[np.ndarray, "*m 3"]) -> Float[np.ndarray, "*m"]:
    """Distance, Angstrom."""
    return np.linalg.norm(a - b, axis=-1)


def angle(
    a: Float[np.ndarray, "*m 3"], o: Float[np.ndarray, "*m 3"], b: Float[np.ndarray, "*m 3"]
) -> Float[np.ndarray, "*m"]:
    """Angle at `o`, 0 to 180 degrees."""
    u, v = a - o, b - o
    across = np.linalg.norm(np.cross(u, v), axis=-1)
    return np.degrees(np.arctan2(across, (u * v).sum(-1)))


def torsion(
    a: Float[np.ndarray, "*m 3"],
    i: Float[np.ndarray, "*m 3"],
    j: Float[np.ndarray, "*m 3"],
    b: Float[np.ndarray, "*m 3"],
) -> Float[np.ndarray, "*m"]:
    """Torsion about i-j, -180 to 180 degrees; 0 is cis, positive clockwise (IUPAC)."""
    u, axis, v = i - a, j - i, b - j
    left, right = np.cross(u, axis), np.cross(axis, v)
    sine = (u * right).sum(-1) * np.linalg.norm(axis, axis=-1)
    return np.degrees(np.arctan2(sine, (left * right).sum(-1)))


MEASURE = {"bonds": length, "angles": angle, "torsions": torsion}


@dataclass(frozen=True)
class GeometryDistance:
    """How far two sets of conformers are apart in one kind of term.

    Attributes:
        distance: mean JS distance over types, weighted by the references' counts; NaN where no
            type is frequent enough.
        floor: of one half of the references against the other; None where there are no halves.
        types: how many were averaged.
        n: conformers of either set.
    """

    distance: float
    floor: float | None
    types: int
    n: int


def geometry_distances(
    pairs: Sequence[tuple[Record, Record]], seed: int = 0, least: int = LEAST
) -> dict[str, GeometryDistance]:
    """JS distances by kind of (samples, references), a pair a molecule.

    Each molecule's references are halved at random. As many samples as the first half has stand
    against the second half, and so does the first half itself: that is the floor. Molecules with
    fewer samples than that are left out; so are those of a single reference, unless all are such:
    then one sample stands against it and there is no floor.
    """
    halved = [(s, r) for s, r in pairs if len(r.coords) > 1]
    rng = np.random.default_rng(seed)
    sets = [_total(), _total(), _total()]  # samples, first half, second half
    n = 0
    for samples, references in halved or pairs:
        order = rng.permutation(len(references.coords))
        half = len(order) // 2
        m = max(half, 1)
        if len(samples.coords) < m:
            continue
        n += m
        real = Terms.of(references.graph)
        same = samples.graph is references.graph
        _add(sets[0], (real if same else Terms.of(samples.graph)).histograms(samples.coords[:m]))
        for total, rows in zip(sets[1:], (order[:half], order[half:]), strict=True):
            _add(total, real.histograms(references.coords[rows]))
    samples_, first, second = sets
    found = {}
    for kind in KINDS:
        distance, types = _mean_distance(samples_[kind], second[kind], least)
        floor = _mean_distance(first[kind], second[kind], least)[0] if halved else None
        found[kind] = GeometryDistance(distance, floor, types, n)
    return found


def _total() -> dict[str, dict[Type, np.ndarray]]:
    return {kind: {} for kind in KINDS}


def _add(total: dict[str, dict[Type, np.ndarray]], more: dict[str, dict[Type, np.ndarray]]) -> None:
    for kind, types in more.items():
        for name, counts in types.items():
            total[kind][name] = total[kind].get(name, 0) + counts


def _mean_distance(
    a: dict[Type, np.ndarray], b: dict[Type, np.ndarray], least: int
) -> tuple[float, int]:
    common = [t for t in b if min(a.get(t, np.zeros(1)).sum(), b[t].sum()) >= least]
    if not common:
        return float("nan"), 0
    weights = [b[t].sum() for t in common]
    distances = [np.sqrt(max(js_divergence(a[t], b[t]), 0)) for t in common]
    return float(np.average(distances, weights=weights)), len(common)
