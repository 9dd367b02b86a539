"""How good generated ensembles are: one table of coverage, geometry, energy, validity and stereo.

Samples and references come as pairs of records, a pair a molecule. Each figure stands beside what
the references themselves score (the floor): one part of them against the rest for coverage and
geometry, their own rate or strain elsewhere. Intervals (95%) are bootstraps over molecules, since
conformers of one molecule are no independent samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from sciffusion.data.pool import Progress
from sciffusion.domains.molecule import busters
from sciffusion.domains.molecule.energy import strains
from sciffusion.domains.molecule.geom_protocol import SAMPLES, geom_protocol, reference_floor
from sciffusion.domains.molecule.geometry_stats import KINDS, geometry_distances
from sciffusion.domains.molecule.graph import Record
from sciffusion.domains.molecule.peers import PEERS, peer_records
from sciffusion.domains.molecule.stereo import bonds_kept, obeys
from sciffusion.errors import InputError
from sciffusion.metrics.bootstrap import bootstrap_interval
from sciffusion.metrics.table import Row, Table

Pairs = Sequence[tuple[Record, Record]]


@dataclass(frozen=True)
class Measures:
    """What is measured.

    Args:
        delta: of COV, in Angstrom: 0.75 for drug-like molecules, 0.5 for QM9.
        geometry: distributions of bonds, angles and torsions.
        energy: conformers of a molecule, samples and references each, whose MMFF94 strain is
            measured; 0 is off.
        xtb: the same with GFN2-xTB.
        busters: the same with PoseBusters' checks (3 s a molecule and 0.2 s a conformer).
        peers: names in `peers.PEERS` that draw as many conformers, for the coverage rows.
        workers: processes; None takes one a core.
        resamples: bootstrap replicates.
        seed: of the bootstrap and of what is chosen at random.
    """

    delta: float = 0.75
    geometry: bool = True
    energy: int = 10
    xtb: int = 0
    busters: int = 0
    peers: Sequence[str] = ("etkdg", "mmff")
    workers: int | None = None
    resamples: int = 200
    seed: int = 0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Measures:
        """From a configuration that may hold more."""
        return cls(**{f.name: settings[f.name] for f in fields(cls) if f.name in settings})

    @property
    def rounds(self) -> int:
        """How often `progress` is called for each molecule."""
        return 1 + len(self.peers) + sum(n > 0 for n in (self.energy, self.xtb, self.busters))


def evaluate_ensembles(
    generated: Sequence[Record],
    references: Sequence[Record],
    settings: Measures | Mapping[str, Any] | None = None,
    seconds: float | None = None,
    first_draw: Sequence[Record] | None = None,
    progress: Progress | None = None,
) -> Table:
    """Measure generated conformers against references.

    Args:
        generated: conformers as returned, one record a molecule, in the order of `references`; a
            molecule that could not be served has none.
        references: conformers to compare with, at least one of each molecule.
        settings: what is measured.
        seconds: that drawing took, for the rate.
        first_draw: all conformers of the first draw, before any was rejected and drawn again.
        progress: called with the number of molecules finished, `Measures.rounds` times for each.

    Raises:
        InputError: other numbers of molecules, a molecule without references, a pair that is not
            one molecule, or a measure that is not installed.
    """
    how = settings if isinstance(settings, Measures) else Measures.of(settings or {})
    if len(generated) != len(references):
        raise InputError(
            f"samples of {len(generated)} molecules and references of {len(references)}: give one "
            "record of each a molecule, in one order"
        )
    pairs = [(_finite(s), r) for s, r in zip(generated, references, strict=True)]
    broken = sum(len(s.coords) for s in generated) - sum(len(s.coords) for s, _ in pairs)
    result = geom_protocol(pairs, how.delta, how.workers, progress)
    floor = reference_floor(references, how.delta, how.seed, how.workers)
    rows = result.rows(floor, how.resamples, how.seed)
    for name in how.peers:
        rows += _peer_rows(name, references, how, progress)
    rows += [
        _count("molecules without samples", len(result.failed), len(pairs), "COV 0, no AMR"),
        _count("molecules with fewer samples than two a reference", result.short, len(pairs)),
        _count("conformers that are not finite", broken, broken + _size(s for s, _ in pairs),
               "left out of all other rows"),
    ]  # fmt: skip
    rows += _stereo_rows(pairs, first_draw, how)
    if how.geometry:
        rows += _geometry_rows(pairs, how)
    for name, label, n in (("mmff", "MMFF94", how.energy), ("xtb", "GFN2-xTB", how.xtb)):
        if n:
            rows += _strain_rows(_some(pairs, n, how.seed), name, label, how, progress)
    rows += busters_rows(pairs, how, progress)
    if seconds:
        n = _size(s for s, _ in pairs)
        rows.append(Row("conformers per second", n / seconds, n=n, unit="1/s", better="higher"))
    title = f"Conformers of {len(pairs)} molecules, against {_size(references)} references"
    return Table(title, rows)


def _peer_rows(
    name: str, references: Sequence[Record], how: Measures, progress: Progress | None
) -> list[Row]:
    """Means of the protocol for a peer."""
    graphs, numbers = zip(*((r.graph, SAMPLES * len(r.coords)) for r in references), strict=True)
    drawn, _ = peer_records(name, graphs, numbers, how.seed, how.workers, progress)
    result = geom_protocol(list(zip(drawn, references, strict=True)), how.delta, how.workers)
    means = [row for row in result.rows(None, how.resamples, how.seed) if row.name.endswith("mean")]
    return [replace(row, name=f"{row.name}, {PEERS[name].label}", note="") for row in means]


def _size(records: Any) -> int:
    return sum(len(record.coords) for record in records)


def _finite(record: Record) -> Record:
    kept = np.isfinite(record.coords).all((1, 2))
    return record if kept.all() else Record(record.graph, record.coords[kept])


def _some(pairs: Pairs, n: int, seed: int) -> list[tuple[Record, Record]]:
    """The first n samples and n references at random of each molecule."""
    rng = np.random.default_rng(seed)
    chosen = [(s, r, rng.permutation(len(r.coords))[:n]) for s, r in pairs]
    return [(Record(s.graph, s.coords[:n]), Record(r.graph, r.coords[i])) for s, r, i in chosen]


def _count(name: str, value: int, n: int, note: str = "", floor: float | None = None) -> Row:
    return Row(name, int(value), n=n, floor=floor, note=note)


def _share(
    name: str, hits: Sequence[Bool[np.ndarray, " k"]], how: Measures, floor: float | None, note: str
) -> Row:
    """A share of conformers, given by molecule."""
    found = np.array([h.sum() for h in hits], dtype=float)
    size = np.array([len(h) for h in hits])
    if not size.sum():
        return Row(name, np.nan, n=0, better="higher", note="no such conformers")

    def share(index: np.ndarray) -> float:
        return float(found[index].sum() / max(size[index].sum(), 1))

    whole = bootstrap_interval(share, len(size), how.resamples, seed=how.seed)
    low, high = max(whole.low, 0.0), min(whole.high, 1.0)
    return Row(name, whole.value, low, high, int(size.sum()), floor, "", "higher", note)


def _stereo_rows(pairs: Pairs, first_draw: Sequence[Record] | None, how: Measures) -> list[Row]:
    def obeyed(records: Sequence[Record]) -> list[np.ndarray]:
        asked = (r for r in records if r.graph.tetra_sign.any() or r.graph.ez_sign.any())
        return [obeys(r.coords, r.graph) for r in asked if len(r.coords)]

    def changed(records: Sequence[Record]) -> int:
        return sum(int((~bonds_kept(r.coords, r.graph)).sum()) for r in records if len(r.coords))

    returned, real = [s for s, _ in pairs], [r for _, r in pairs]
    truth = obeyed(real)
    floor = float(np.concatenate(truth).mean()) if truth else None
    note = "conformers that meet every R/S and E/Z asked for"
    sets = [("returned", returned, changed(real))]
    if first_draw is not None:
        sets.append(("first draw", [_finite(r) for r in first_draw], None))
    rows = [_share(f"stereo obeyed, {w}", obeyed(r), how, floor, note) for w, r, _ in sets]
    what = "conformers whose distances show other bonds"
    rows += [_count(f"bonds changed, {w}", changed(r), _size(r), what, f) for w, r, f in sets]
    return rows


def _geometry_rows(pairs: Pairs, how: Measures) -> list[Row]:
    found = geometry_distances(pairs, how.seed)
    return [
        Row(
            f"JS distance, {kind}",
            found[kind].distance,
            n=found[kind].n,
            floor=found[kind].floor,
            note=f"mean over {found[kind].types} types; floor: halves of the references",
        )
        for kind in KINDS
    ]


def _strain_rows(
    pairs: Pairs, name: str, label: str, how: Measures, progress: Progress | None
) -> list[Row]:
    samples, real = strains(pairs, name, how.workers, progress)

    def median(values: Float[np.ndarray, " n"]) -> float:
        return float(np.median(values)) if len(values) else np.nan

    return [
        Row(
            f"{label} {what}, median",
            median(getattr(samples, field)),
            n=len(samples.before),
            floor=median(getattr(real, field)),
            unit=unit,
            note=note,
        )
        for what, field, unit, note in (
            ("strain", "before", "kcal/mol", "above the lowest relaxed energy; floor: references"),
            ("strain once relaxed", "after", "kcal/mol", "the same after relaxing each"),
            ("way of relaxing", "moved", "A", "heavy-atom RMSD"),
        )
    ]


def busters_rows(
    pairs: Pairs, how: Measures, progress: Progress | None = None, of: str = ""
) -> list[Row]:
    """Shares of some conformers that pass PoseBusters; `of` says in names which they are."""
    name = f"PoseBusters pass{of}"
    if not busters.installed():
        return [Row(name, np.nan, better="higher", note=busters.MISSING)]
    if not how.busters:
        note = "not measured: choose how many conformers a molecule with busters=2"
        return [Row(name, np.nan, better="higher", note=note)]
    pairs = _some(pairs, how.busters, how.seed)
    samples, real = busters.pose_checks(pairs, how.workers, progress)
    size = [len(s.coords) for s, _ in pairs]
    parts = np.split(busters.passed(samples), np.cumsum(size)[:-1])
    whole = float(busters.passed(real).mean())
    rows = [_share(name, parts, how, whole, "all checks; floor: references")]
    for check, hits in samples.items():
        own, floor = float(hits.mean()), float(real[check].mean())
        if min(own, floor) < 1:
            rows.append(
                Row(f"PoseBusters, {check}{of}", own, n=len(hits), floor=floor, better="higher")
            )
    if samples and len(rows) <= len(samples):
        rows[0] = replace(rows[0], note="all checks; those not listed are passed by all")
    return rows
