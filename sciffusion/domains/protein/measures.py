"""What is measured of one backbone, and figures of many, declared as data.

A structure gives sums (a numerator and a denominator, pooled over structures), values (a figure of
the structure as a whole) and counts (a histogram). A `Figure` turns the rows of one of these, of
some structures, and those of the references into a number; so bootstraps and floors are the same
figure of other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from sciffusion.domains.protein import distributions as dist
from sciffusion.domains.protein import validity
from sciffusion.domains.protein.backbone import CA, Backbone
from sciffusion.domains.protein.secondary import HELIX, STRAND, dssp, psea
from sciffusion.metrics.js import js_divergence

Rows = Float[np.ndarray, "n ..."]
Measured = dict[str, np.ndarray]
"""What was measured, by name: of one structure, or of many with a leading axis."""
UNUSUAL_OMEGA = 30.0
"""Degrees from trans and from cis; a peptide bond is nearer to one of them."""


def measure(b: Backbone) -> Measured:
    """Everything that `FIGURES` need of a structure whose coordinates are finite."""
    links = validity.expected_links(b)
    ca = validity.ca_distances(b)
    bend = 180 - np.abs(validity.omegas(b))  # from trans; 180 is cis
    found: Measured = {
        "CA trans": _share(validity.near(ca, validity.TRANS)),
        "CA cis": _share(validity.near(ca, validity.CIS)),
        "broken": _share(~b.joined[links]),
        "clashing": _share(validity.clashing(b)),
        "left-handed": np.array([validity.left_handed(b), len(b)]),
        "omega cis": _share(bend > 90),
        "omega twisted": _share(np.minimum(bend, 180 - bend) > UNUSUAL_OMEGA),
        "omega": _squares(bend[bend <= 90]),
        "CA map": dist.ca_histogram(b),
        "Ramachandran": dist.ramachandran_histogram(b),
        "contact order": np.array(dist.relative_contact_order(b)),
    }
    for terms, ideal in (
        (validity.bond_lengths(b), validity.BONDS),
        (validity.bond_angles(b), validity.ANGLES),
    ):
        found |= {name: _squares(terms[name] - middle) for name, middle in ideal.items()}
    radius = dist.radius_of_gyration(b)
    found["radius"] = np.array([radius, radius / dist.usual_radius(len(b))])
    for name, codes in (
        ("P-SEA", psea(b.coords[:, CA], links)),
        (
            "DSSP",
            dssp(b.coords, links),
        ),  # samples have no prolines: all residues are donors in both
    ):
        found[f"helix, {name}"] = np.array((codes == HELIX).mean())
        found[f"strand, {name}"] = np.array((codes == STRAND).mean())
    return found


def stacked(measured: Sequence[Measured]) -> Measured:
    """Many structures put together: a row each."""
    return {name: np.stack([m[name] for m in measured]) for name in measured[0]}


def _share(hits: np.ndarray) -> np.ndarray:
    return np.array([hits.sum(), len(hits)])


def _squares(values: np.ndarray) -> np.ndarray:
    return np.array([(values**2).sum(), len(values)])


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Attributes:
        name: of the row.
        key: what of `measure` it is made of.
        of: (rows of the samples, rows of the references) -> the figure.
        unit: of the figure.
        better: which way is good.
        most: the largest value that is possible, for the interval's end.
        plain: what the figure compares, told in the note for both sets.
        note: what a reader must know.
    """

    name: str
    key: str
    of: Callable[[Rows, Rows], float]
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    most: float = field(default=np.inf, kw_only=True)
    plain: Callable[[Rows], float] | None = field(default=None, kw_only=True)
    note: str = field(default="", kw_only=True)

    def told(self, rows: Rows, references: Rows) -> str:
        """The note."""
        if self.plain is None:
            return self.note
        values = f"{self.plain(rows):.3g}, references {self.plain(references):.3g}"
        return f"{values}; {self.note}" if self.note else values


def pooled(rows: Rows, references: Rows | None = None) -> float:
    """The mean over all that the structures hold together; NaN where that is nothing."""
    above, below = rows.sum(0)
    return float(above / below) if below else np.nan


def root(rows: Rows, references: Rows | None = None) -> float:
    """The root mean square over all that the structures hold together."""
    return float(np.sqrt(pooled(rows)))


def divergence(rows: Rows, references: Rows) -> float:
    """Of the pooled histograms, bits; 1 where the samples have no angles at all."""
    total = rows.sum(0)
    return js_divergence(total, references.sum(0)) if total.any() else 1.0


def mean(rows: Rows) -> float:
    """Over structures."""
    return float(rows.mean())


def mean_off(rows: Rows, references: Rows) -> float:
    """How far the mean over structures lies from that of the references."""
    return abs(mean(rows) - mean(references))


def median_radius(rows: Rows) -> float:
    """Angstrom."""
    return float(np.median(rows[:, 0]))


def radius_off(rows: Rows, references: Rows) -> float:
    """How far the median radius over the usual one lies from that of the references, relative."""
    return abs(float(np.median(rows[:, 1]) / np.median(references[:, 1])) - 1)


FIGURES = (
    Figure("CA-CA valid", "CA trans", pooled, "", "higher", most=1,
           note="links within 3.8 +- 0.1 A, from both sides"),
    Figure("CA-CA cis", "CA cis", pooled, most=1,
           note="links within 2.97 +- 0.1 A; near the floor is good"),
    Figure("broken peptide bonds", "broken", pooled, most=1, note="links with C-N of 2 A or more"),
    Figure("residues that clash", "clashing", pooled, most=1,
           note="CA |i-j| >= 3 under 3.0 A, backbone atoms |i-j| >= 2 under 2.4 A"),
    Figure("left-handed helix", "left-handed", pooled, most=1,
           note="runs of four CA dihedrals in -70..-30 degrees, per residue"),
    Figure("JS, CA angle and dihedral", "CA map", divergence, "bits", most=1,
           note="20 x 36 bins"),
    Figure("JS, Ramachandran", "Ramachandran", divergence, "bits", most=1, note="36 x 36 bins"),
    *(Figure(f"{kind} share off, {how}", f"{kind}, {how}", mean_off, plain=mean)
      for how in ("P-SEA", "DSSP") for kind in ("helix", "strand")),
    Figure("radius of gyration off", "radius", radius_off, plain=median_radius,
           note="medians in A; the figure is of radii over 2.2 N^0.38"),
    Figure("relative contact order off", "contact order", mean_off, plain=mean,
           note="CA within 8 A, |i-j| >= 3"),
    *(Figure(f"{name} bond, RMS off {ideal} A", name, root, "A")
      for name, ideal in validity.BONDS.items()),
    *(Figure(f"{name} angle, RMS off {ideal:.1f}", name, root, "degrees")
      for name, ideal in validity.ANGLES.items()),
    Figure("omega of trans bonds, RMS off 180", "omega", root, "degrees"),
    Figure("omega cis", "omega cis", pooled, most=1, note="near the floor is good"),
    Figure("omega twisted", "omega twisted", pooled, most=1,
           note="more than 30 degrees from trans and from cis"),
)  # fmt: skip
