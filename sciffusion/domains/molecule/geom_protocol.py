"""The GEOM protocol: how well 2K samples of a molecule cover its K reference conformers, and fit.

RMSD is that of `rmsd.py`. Recall looks from each reference to its nearest sample, precision from
each sample to its nearest reference. COV is the share nearer than delta (0.75 Angstrom for drugs,
0.5 for QM9), AMR the mean distance; both are averaged over molecules. A molecule without samples
has COV 0 and no AMR.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from sciffusion.data.pool import Progress
from sciffusion.domains.molecule.graph import Record
from sciffusion.domains.molecule.rmsd import rmsd_matrices
from sciffusion.errors import InputError
from sciffusion.metrics.bootstrap import bootstrap_interval
from sciffusion.metrics.table import Row

COLUMNS = ("COV-R", "AMR-R", "COV-P", "AMR-P")
SAMPLES = 2
"""Samples asked for each reference conformer."""


@dataclass(frozen=True)
class Nearest:
    """One molecule: how far each conformer is from the nearest of the other set, in Angstrom.

    Attributes:
        name: of the molecule.
        recall: (K,) a reference to its nearest sample; infinite where there are no samples.
        precision: (n,) a sample to its nearest reference.
    """

    name: str
    recall: Float[np.ndarray, " k"]
    precision: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, name: str, matrix: Float[np.ndarray, "n k"]) -> Nearest:
        """From the RMSD of every sample to every reference."""
        return cls(name, matrix.min(0, initial=np.inf), matrix.min(1, initial=np.inf))

    def figures(self, delta: float) -> tuple[float, float, float, float]:
        """COV-R, AMR-R, COV-P, AMR-P."""
        if not len(self.precision):
            return 0.0, np.nan, 0.0, np.nan
        recall, precision = self.recall, self.precision
        return (
            float((recall < delta).mean()),
            float(recall.mean()),
            float((precision < delta).mean()),
            float(precision.mean()),
        )


@dataclass(frozen=True)
class GeomResult:
    """The protocol's figures of a set of molecules.

    Attributes:
        molecules: one each.
        delta: of COV, in Angstrom.
    """

    molecules: Sequence[Nearest]
    delta: float

    @property
    def figures(self) -> Float[np.ndarray, "m 4"]:
        """A row a molecule, columns as `COLUMNS`; NaN where a molecule has no AMR."""
        return np.array([m.figures(self.delta) for m in self.molecules]).reshape(-1, 4)

    @property
    def failed(self) -> list[str]:
        """Molecules without samples."""
        return [m.name for m in self.molecules if not len(m.precision)]

    @property
    def short(self) -> int:
        """Molecules with fewer samples than the protocol asks for, those without any too."""
        return sum(len(m.precision) < SAMPLES * len(m.recall) for m in self.molecules)

    def mean(self) -> dict[str, float]:
        """Means over molecules."""
        return {name: float(column.mean()) for name, column in self._columns()}

    def median(self) -> dict[str, float]:
        """Medians over molecules."""
        return {name: float(np.median(column)) for name, column in self._columns()}

    def _columns(self) -> list[tuple[str, np.ndarray]]:
        """Each column without its NaNs; one NaN where nothing is left."""
        kept = ((c, v[~np.isnan(v)]) for c, v in zip(COLUMNS, self.figures.T, strict=True))
        return [(c, v if len(v) else np.array([np.nan])) for c, v in kept]

    def curve(self, deltas: Sequence[float]) -> list[dict[str, float]]:
        """Mean COV-R and COV-P by delta."""
        rows = []
        for delta in deltas:
            mean = replace(self, delta=float(delta)).mean()
            rows.append({"delta": delta, "COV-R": mean["COV-R"], "COV-P": mean["COV-P"]})
        return rows

    def rows(
        self, floor: GeomResult | None = None, resamples: int = 200, seed: int = 0
    ) -> list[Row]:
        """Mean and median of the four, with intervals over molecules and the floor beside."""
        figures = []
        for kind, of in (("mean", np.mean), ("median", np.median)):
            floors = getattr(floor, kind)() if floor and floor.molecules else {}
            figures += [
                self._row(f"{name} {kind}", of, column, floors.get(name), resamples, seed)
                for name, column in self._columns()
            ]
        return figures

    def _row(
        self, name: str, of: Callable, v: np.ndarray, floor: float | None, resamples: int, seed: int
    ) -> Row:
        covers = name.startswith("COV")
        whole = bootstrap_interval(lambda i: float(of(v[i])), len(v), resamples, seed=seed)
        low, high = max(whole.low, 0.0), min(whole.high, 1.0 if covers else np.inf)
        notes = {
            "COV-R mean": f"references with a sample nearer than {self.delta:g} A",
            "AMR-R mean": "reference to its nearest sample",
            "COV-P mean": f"samples with a reference nearer than {self.delta:g} A",
            "AMR-P mean": "sample to its nearest reference",
            "COV-R median": "floors: 2/3 of a molecule's references against the other 1/3",
        }
        return Row(
            name, whole.value, low, high, int(np.isfinite(v).sum()), floor, "" if covers else "A",
            "higher" if covers else "lower", notes.get(name, ""),
        )  # fmt: skip


def geom_protocol(
    pairs: Sequence[tuple[Record, Record]],
    delta: float = 0.75,
    workers: int | None = 1,
    progress: Progress | None = None,
) -> GeomResult:
    """The protocol's figures of (samples, references), a pair a molecule.

    Of more than 2K samples the first 2K count; fewer are taken as they are.

    Args:
        pairs: samples (of any number, or none) and at least one reference, of one molecule.
        delta: of COV, in Angstrom.
        workers: processes; None takes one a core.
        progress: called with the number of molecules finished.

    Raises:
        InputError: no pairs, a molecule without references, coordinates that are not finite, or a
            pair that is not one molecule.
    """
    if not pairs or delta <= 0:
        raise InputError(f"{len(pairs)} molecules and delta={delta}: give at least one and > 0")
    cut = []
    for samples, references in pairs:
        name = references.graph.name or references.graph.smiles
        if not len(references.coords):
            raise InputError(f"molecule {name!r} has no reference conformers: leave it out")
        for what, record in (("samples", samples), ("references", references)):
            if not np.isfinite(record.coords).all():
                raise InputError(f"molecule {name!r}: {what} are not finite: leave those out")
        first = samples.coords[: SAMPLES * len(references.coords)]
        cut.append((Record(samples.graph, first), references))
    matrices = rmsd_matrices(cut, workers, progress)
    return GeomResult(
        [
            Nearest.of(references.graph.name or references.graph.smiles, matrix)
            for (_, references), matrix in zip(cut, matrices, strict=True)
        ],
        delta,
    )


def reference_floor(
    references: Sequence[Record], delta: float = 0.75, seed: int = 0, workers: int | None = 1
) -> GeomResult:
    """What real conformers score: a random 2/3 of each molecule's references against the other 1/3.

    So there are two "samples" for each "reference", as in the protocol, but only a third of the
    references to cover. Molecules of fewer than three conformers are left out. A set of distinct
    minima does not cover itself: this floor is what a generator scores that never repeats itself.
    """
    rng = np.random.default_rng(seed)
    pairs = []
    for record in references:
        third = len(record.coords) // 3
        if third:
            order = rng.permutation(len(record.coords))
            held, rest = order[:third], order[third : (1 + SAMPLES) * third]
            parts = (Record(record.graph, record.coords[i]) for i in (rest, held))
            pairs.append(tuple(parts))
    return geom_protocol(pairs, delta, workers) if pairs else GeomResult([], delta)
