"""How well a design holds its motif: RMSD of each group, junctions, clashes; and its table.

A junction is the bond between a residue of the motif and what follows or precedes it in the chain.
It is valid where C-N is within 0.1 A of a peptide bond's and CA-CA within 0.1 A of one over a trans
or cis bond (`validity`). A clash is one of `validity.clash_pairs` between the motif and new
residues, or between groups that are free relative to each other.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from sciffusion.core.geometry import superposition
from sciffusion.domains.protein.backbone import CA, Backbone, C, N
from sciffusion.domains.protein.geometry import C_N
from sciffusion.domains.protein.motif import Motif, Placement
from sciffusion.domains.protein.validity import CIS, TOLERANCE, TRANS, clash_pairs, near

CLOSE = 1.0
"""RMSD of a motif that is held, Angstrom."""


@dataclass(frozen=True)
class Junction:
    """Where the motif is bonded to new residues, or one of its parts to another.

    Attributes:
        before: the row of the first of the two residues.
        c_n, ca_ca: distances over the bond, Angstrom.
    """

    before: int
    c_n: float
    ca_ca: float

    @property
    def valid(self) -> bool:
        """Both are those of a peptide bond."""
        ca = np.array([self.ca_ca])
        peptide = bool(near(ca, TRANS)[0] | near(ca, CIS)[0])
        return peptide and abs(self.c_n - C_N) <= TOLERANCE


@dataclass(frozen=True)
class Grafting:
    """How a design holds its motif.

    Attributes:
        rmsd: by group, of N, CA, C and O to the motif after superposition, Angstrom.
        junctions: in order.
        clashes: pairs of residues, rows of the design.
    """

    rmsd: dict[str, float]
    junctions: list[Junction]
    clashes: Int[np.ndarray, "k 2"]

    @property
    def holds(self) -> bool:
        """Every group within 1 A."""
        return max(self.rmsd.values()) <= CLOSE

    @property
    def joined(self) -> bool:
        """Every junction is valid and nothing of the motif clashes."""
        return not len(self.clashes) and all(j.valid for j in self.junctions)


def grafting(design: Backbone, motif: Motif, placement: Placement) -> Grafting:
    """Measure a design."""
    target, group, x = motif.points(placement), placement.group, design.coords
    rmsd = {}
    for number, name in enumerate(placement.contig.groups, 1):
        mine = group == number
        off = _superposed(x, target, mine)[mine] - target[mine]
        rmsd[name] = float(np.sqrt((off**2).sum(-1).mean()))
    rows, same = placement.rows, np.diff(np.repeat(np.arange(len(placement.chains)),
                                                   placement.chains)) == 0  # fmt: skip
    bonded = np.append(motif.backbone.joined, False)[rows[:-1]]
    # All but two neighbours of the motif that are bonded there
    cut = (np.diff(rows) != 1) | (np.diff(group) != 0) | ~bonded
    held = (group[1:] > 0) | (group[:-1] > 0)
    junctions = [
        Junction(
            int(k),
            float(np.linalg.norm(x[k + 1, N] - x[k, C])),
            float(np.linalg.norm(x[k + 1, CA] - x[k, CA])),
        )
        for k in np.flatnonzero(same & cut & held)
    ]
    pairs = clash_pairs(design)
    return Grafting(rmsd, junctions, pairs[group[pairs[:, 0]] != group[pairs[:, 1]]])


def laid_on_motif(
    coords: Float[np.ndarray, "l 4 3"], motif: Motif, placement: Placement
) -> Float[np.ndarray, "l 4 3"]:
    """A design moved rigidly so that the first group of its motif lies where the file has it."""
    return _superposed(coords, motif.points(placement), placement.group == 1)


def _superposed(x: np.ndarray, target: np.ndarray, mine: Bool[np.ndarray, " l"]) -> np.ndarray:
    """All of x, moved as its residues `mine` are onto the target's."""
    one, other = (torch.from_numpy(v.astype(np.float64))[None] for v in (x, target))
    rotation, middle, to = superposition(one, other, torch.from_numpy(mine)[None])
    found: np.ndarray = ((one - middle[:, None]) @ rotation[:, None] + to[:, None])[0].numpy()
    return found


def note_of(
    design: Backbone, motif: Motif, placement: Placement, found: Grafting
) -> dict[str, Any]:
    """All of a design for a JSON file: its contig, where its motif came from, its measures."""
    groups = placement.contig.groups

    def name(row: int) -> dict[str, Any]:
        return {"chain": str(design.chain[row]), "number": int(design.number[row])}

    kept = np.flatnonzero(placement.group)
    return {
        "design": design.name,
        "contig": str(placement.contig),
        "residues": len(design),
        "rmsd": {k: round(v, 4) for k, v in found.rmsd.items()},
        "junctions": [
            {**name(j.before), "C-N": round(j.c_n, 3), "CA-CA": round(j.ca_ca, 3), "valid": j.valid}
            for j in found.junctions
        ],
        "clashes": [[name(a), name(b)] for a, b in found.clashes.tolist()],
        "holds": found.holds,
        "joined": found.joined,
        "motif": [
            {
                **name(k),
                "group": groups[placement.group[k] - 1],
                "from": motif.where(placement.rows[k]),
            }
            for k in kept.tolist()
        ],
    }


def table_of(notes: Sequence[Mapping[str, Any]]) -> str:
    """A CSV of these notes, a line a design."""
    groups = sorted({name for note in notes for name in note["rmsd"]})
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(
        ["design", "contig", "residues", *(f"rmsd_{g}" for g in groups), "junctions",
         "junctions_valid", "clashes", "holds", "joined"]
    )  # fmt: skip
    for note in notes:
        joints = note["junctions"]
        table.writerow(
            [note["design"], note["contig"], note["residues"], *(note["rmsd"][g] for g in groups),
             len(joints), sum(j["valid"] for j in joints), len(note["clashes"]), note["holds"],
             note["joined"]]
        )  # fmt: skip
    return out.getvalue()


def told_of(found: Grafting) -> str:
    """In a line."""
    off = ", ".join(f"{k} {v:.3f}" for k, v in found.rmsd.items())
    valid = sum(j.valid for j in found.junctions)
    return (
        f"motif RMSD by group {off} A (N, CA, C, O); {valid} of {len(found.junctions)} junctions "
        f"valid; {len(found.clashes)} clashes of it"
    )
