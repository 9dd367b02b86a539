"""How good generated backbones are: one table, each figure with its interval, its n and its floor.

References are held-out chains as long as the samples. The floor is what a perfect generator would
score: as many real training chains, drawn with the samples' lengths, measured in the same way.
Intervals (95%) are bootstraps over samples, the references staying as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from sciffusion.data.pool import Progress, shared_out
from sciffusion.domains.protein import similarity
from sciffusion.domains.protein.backbone import CA, Backbone
from sciffusion.domains.protein.external import judge
from sciffusion.domains.protein.measures import FIGURES, Figure, Measured, measure, stacked
from sciffusion.domains.protein.plan import Plan, ProteinMeasures, union
from sciffusion.metrics.bootstrap import bootstrap_interval, mean_interval
from sciffusion.metrics.table import Row, Table

COPY = 0.95
"""TM-score to a training chain above which a sample is a copy."""


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        table: of all figures.
        novelty: TM-score of each finite sample to its nearest training chain; empty where it was
            not measured.
        usual: the same of held-out chains.
    """

    table: Table
    novelty: Float[np.ndarray, " n"]
    usual: Float[np.ndarray, " m"]


def evaluate_backbones(
    samples: Sequence[Backbone],
    references: Sequence[Backbone],
    train: Sequence[Backbone],
    how: ProteinMeasures | Mapping[str, Any] | None = None,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> Table:
    """Measure generated backbones against real ones; the arguments are those of `find`."""
    return find(samples, references, train, how, seconds, progress).table


def find(
    samples: Sequence[Backbone],
    references: Sequence[Backbone],
    train: Sequence[Backbone],
    how: ProteinMeasures | Mapping[str, Any] | None = None,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Measure generated backbones against real ones.

    Args:
        samples: generated; those that are not finite are counted and left out.
        references: held-out real chains.
        train: training chains, for the floors and for novelty.
        how: what is measured.
        seconds: that drawing took, for the rate.
        progress: called with the number of steps finished, of `ProteinMeasures.steps` in all.

    Raises:
        InputError: no finite sample, no references or no training chains, or an external command
            that does not do its work.
    """
    how = how if isinstance(how, ProteinMeasures) else ProteinMeasures.of(how or {})
    plan = Plan.of(samples, references, train, how)
    broken = len(samples) - len(plan.samples)
    rows = [Row("samples that are not finite", broken, n=len(samples), note="left out below")]
    rows += _figure_rows(plan, train, how, progress)
    rows += _pair_rows(plan, train, how, progress)
    new, usual = (_nearest(part, train, how, progress) for part in (plan.samples, plan.held_out))
    rows += _novelty_rows(new, usual, how)
    if how.external:
        rows += _external_rows(how.external, plan.samples, how)
    if seconds:
        rate = len(samples) / seconds
        rows.append(Row("samples per second", rate, n=len(samples), unit="1/s", better="higher"))
    lengths = sorted({len(b) for b in plan.samples})
    span = f"{lengths[0]} to {lengths[-1]}" if len(lengths) > 1 else f"{lengths[0]}"
    title = (
        f"{len(plan.samples)} backbones of {span} residues, against {len(plan.references)} "
        f"held-out chains of {min(map(len, plan.references))} to {max(map(len, plan.references))}"
    )
    return Findings(Table(title, rows), new, usual)


def _figure_rows(
    plan: Plan, train: Sequence[Backbone], how: ProteinMeasures, progress: Progress | None
) -> list[Row]:
    def measured(backbones: Sequence[Backbone]) -> Measured:
        return stacked(shared_out(measure, backbones, how.workers, progress))

    own, real = measured(plan.samples), measured(plan.references)
    drawn = union(plan.floors)
    pool = measured([train[k] for k in drawn]) if len(drawn) else {}
    sets = [np.searchsorted(drawn, chosen) for chosen in plan.floors]
    return [_figure_row(f, own, real, pool, sets, how) for f in FIGURES]


def _figure_row(
    figure: Figure,
    own: Measured,
    real: Measured,
    pool: Measured,
    sets: Sequence[np.ndarray],
    how: ProteinMeasures,
) -> Row:
    rows, references = own[figure.key], real[figure.key]
    found = bootstrap_interval(
        lambda i: figure.of(rows[i], references), len(rows), how.resamples, seed=how.seed
    )
    floors = [figure.of(pool[figure.key][chosen], references) for chosen in sets]
    return Row(
        figure.name,
        found.value,
        max(found.low, 0.0),
        min(found.high, figure.most),
        len(rows),
        float(np.mean(floors)) if floors else None,
        figure.unit,
        figure.better,
        figure.told(rows, references),
    )


def _pair_rows(
    plan: Plan, train: Sequence[Backbone], how: ProteinMeasures, progress: Progress | None
) -> list[Row]:
    """Mean TM-score of pairs of samples, and how many folds there are."""
    n = len(plan.compared)
    names = ("TM of pairs of samples, mean", "clusters a sample")
    if n < 2 or not similarity.installed():
        note = similarity.MISSING if n > 1 else "not measured: pairs=0 or a single sample"
        return [Row(name, np.nan, note=note) for name in names]

    def compared(backbones: Sequence[Backbone]) -> Float[np.ndarray, "n n"]:
        return similarity.pairwise_tm(_traces(backbones), how.workers, progress)

    def mean(tm: np.ndarray, i: np.ndarray) -> float:
        if (i == i[0]).all():  # a resample of one sample has no pairs
            i = np.arange(n)
        return float(tm[np.ix_(i, i)][i[:, None] != i].mean())

    tm = compared([plan.samples[k] for k in plan.compared])
    floor = compared([train[k] for k in plan.floors[0][plan.compared]]) if plan.floors else None
    whole = np.arange(n)
    found = bootstrap_interval(lambda i: mean(tm, i), n, how.resamples, seed=how.seed)
    share = _shares(tm)
    folds = mean_interval(share, how.resamples, seed=how.seed)
    return [
        Row(names[0], found.value, found.low, found.high, n,
            None if floor is None else mean(floor, whole),
            note="over both lengths; low is varied"),
        Row(names[1], folds.value, folds.low, min(folds.high, 1.0), n,
            None if floor is None else float(_shares(floor).mean()), "", "higher",
            f"{share.sum():.0f} clusters by single linkage at TM > {similarity.SAME_FOLD}"),
    ]  # fmt: skip


def _shares(tm: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    """One over the size of each chain's cluster: their sum is the number of clusters."""
    label = similarity.clusters(tm)
    return 1 / np.bincount(label)[label]


def _nearest(
    backbones: Sequence[Backbone],
    train: Sequence[Backbone],
    how: ProteinMeasures,
    progress: Progress | None,
) -> Float[np.ndarray, " n"]:
    if not how.novelty or not similarity.installed():
        return np.zeros(0)
    parts = _traces(backbones), _traces(train)
    return similarity.nearest(*parts, how.novelty, how.workers, progress).tm


def _novelty_rows(new: np.ndarray, usual: np.ndarray, how: ProteinMeasures) -> list[Row]:
    names = ("TM to the nearest training chain, mean", f"copies, TM > {COPY}")
    if not len(new):
        note = similarity.MISSING if how.novelty else "not measured: novelty=0"
        return [Row(name, np.nan, note=note) for name in names]
    notes = (
        f"over the sample's length; {how.novelty} training chains aligned; floor: held-out chains",
        "share of samples that are a training chain; floor: held-out chains",
    )
    pairs = ((new, usual), ((new > COPY).astype(float), usual > COPY))
    return [
        replace(_mean_row(name, values, how, note), floor=float(floor.mean()))
        for name, note, (values, floor) in zip(names, notes, pairs, strict=True)
    ]


def _external_rows(command: str, samples: Sequence[Backbone], how: ProteinMeasures) -> list[Row]:
    return [
        _mean_row(name, values[np.isfinite(values)], how, "mean, by the external command", "higher")
        for name, values in judge(command, samples).items()
    ]


def _mean_row(
    name: str,
    values: Float[np.ndarray, " n"],
    how: ProteinMeasures,
    note: str,
    better: Literal["lower", "higher"] = "lower",
) -> Row:
    if not len(values):
        return Row(name, np.nan, n=0, better=better, note=note)
    found = mean_interval(values, how.resamples, seed=how.seed)
    return Row(name, found.value, found.low, found.high, len(values), None, "", better, note)


def _traces(backbones: Sequence[Backbone]) -> list[Float[np.ndarray, "l 3"]]:
    return [b.coords[:, CA] for b in backbones]
