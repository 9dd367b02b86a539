"""Ensembles in a report: generated conformers over each other, beside the references, to turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sciffusion.domains.molecule.graph import MolGraph, Record
from sciffusion.viz.molecules import Frame, frame, superpose, visible
from sciffusion.viz.report import Report
from sciffusion.viz.view3d import View, conformer_view

TEXT = (
    "Conformers of a molecule lie over each other where they agree, so that loose ends fan out. "
    "The colour of carbon runs from violet to sand in order of energy, where energies are known, "
    "else in the order of drawing. The slider shows them one by one."
)


def sections(
    page: Report,
    generated: Sequence[Record],
    references: Sequence[Record] = (),
    molecules: int = 8,
    conformers: int = 20,
) -> Report:
    """Add ensembles to a page: one figure a molecule, its references beside it where there are any.

    Args:
        page: what to add to.
        generated: molecules with their conformers.
        references: of the same molecules in any order; found by SMILES, else by name.
        molecules: how many are shown at most, the first ones.
        conformers: how many of an ensemble are shown at most, evenly through its energies.
    """
    known = {r.graph.name: r for r in references if r.graph.name}
    known |= {r.graph.smiles: r for r in references if r.graph.smiles}
    page.add_section("Ensembles").add_text(TEXT)
    for record in generated[:molecules]:
        graph = record.graph
        reference = known.get(graph.smiles) or known.get(graph.name)
        views = ensembles(record, reference, conformers)
        heading = graph.name or graph.smiles
        caption = graph.smiles if heading != graph.smiles else ""
        if views:
            page.add_structure(*views, heading=heading, caption=caption)
        else:
            page.add_text(f"{heading}: no conformers")
    return page


def ensembles(record: Record, reference: Record | None = None, conformers: int = 20) -> list[View]:
    """Views of a molecule's conformers and of its references; none of what has no conformers.

    Where the atoms of both are in one order, both lie over each other and are framed alike.
    """
    parts = [_Part.of("Generated", record, conformers)]
    if reference is not None:
        parts.append(_Part.of("References", reference, conformers))
    parts = [part for part in parts if len(part.coords)]
    if len(parts) < 2 or not _same_atoms(parts[0].graph, parts[1].graph):
        return [part.view(superpose(part.coords, part.graph.heavy)) for part in parts]
    graph = parts[0].graph
    both = superpose(np.concatenate([part.coords for part in parts]), graph.heavy)
    seen = frame(both[:, visible(graph.z, graph.bonds)])
    halves = np.split(both, [len(parts[0].coords)])
    return [part.view(x, seen) for part, x in zip(parts, halves, strict=True)]


@dataclass(frozen=True)
class _Part:
    """Conformers to be shown in one frame, with what is written at each and at all."""

    title: str
    graph: MolGraph
    coords: Float[np.ndarray, "k n 3"]
    names: list[str]
    note: str

    @classmethod
    def of(cls, title: str, record: Record, most: int) -> _Part:
        finite = np.isfinite(record.coords).all((1, 2))
        coords = record.coords[finite]
        energy = record.energy[finite] if len(record.energy) else np.full(len(coords), np.nan)
        order = np.argsort(energy, kind="stable")  # NaN last
        rows = order[np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).astype(int))]
        above = energy - np.nanmin(energy) if np.isfinite(energy).any() else energy
        names = [f"+{e:.1f} kcal/mol" if np.isfinite(e) else "" for e in above[rows]]
        count = f"{len(rows)} of {len(coords)}" if len(rows) < len(coords) else str(len(coords))
        span = f", within {np.nanmax(above):.1f} kcal/mol" if any(names) and len(coords) > 1 else ""
        plural = "" if len(coords) == 1 else "s"
        return cls(title, record.graph, coords[rows], names, f"{count} conformer{plural}{span}")

    def view(self, coords: Float[np.ndarray, "k n 3"], seen: Frame | None = None) -> View:
        kind = self.graph.bond_features[:, 0].astype(int)
        return conformer_view(
            coords,
            self.graph.z,
            self.graph.bonds,
            np.where((kind >= 1) & (kind <= 4), kind, 1),
            self.names,
            self.title,
            self.note,
            seen,
        )


def _same_atoms(a: MolGraph, b: MolGraph) -> bool:
    """The same atoms and bonds in one order."""
    return np.array_equal(a.z, b.z) and set(map(tuple, a.bonds)) == set(map(tuple, b.bonds))
