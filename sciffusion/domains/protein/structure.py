"""Backbones as Biopython structures and back, for those who go on in Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from sciffusion.domains.protein.backbone import ATOMS, ONE_LETTER, UNKNOWN, Backbone
from sciffusion.domains.protein.layout import DESIGN, checked, names_of
from sciffusion.errors import InputError

if TYPE_CHECKING:
    from Bio.PDB.Structure import Structure


def to_structure(
    backbones: Backbone | Sequence[Backbone],
    b_factor: Float[np.ndarray, "*m l"] | None = None,
    unknown: str = DESIGN,
) -> Structure:
    """A structure with a model a backbone; what a parser of the written file would give.

    Args:
        backbones, b_factor, unknown: as for `writers.pdb_text`.

    Raises:
        InputError: the models or B-factors do not fit each other, or a coordinate is not finite.
    """
    from Bio.PDB.StructureBuilder import StructureBuilder

    models, b = checked(backbones, b_factor)
    names = names_of(models[0], unknown)
    builder: Any = StructureBuilder()  # Biopython has no types
    builder.init_structure(models[0].name or "backbone")
    builder.init_seg("    ")
    for m, (model, values) in enumerate(zip(models, b.tolist(), strict=True)):
        builder.init_model(m, m + 1)
        serial, last = 0, None
        for i, points in enumerate(model.coords.astype(np.float32)):
            if (chain := str(model.chain[i]) or " ") != last:
                builder.init_chain(last := chain)
            code = str(model.insertion[i]) or " "
            builder.init_residue(names[i], " ", int(model.number[i]), code)
            for atom, point in zip(ATOMS, points, strict=True):
                serial += 1
                builder.init_atom(
                    atom, point, values[i], 1.0, " ", f" {atom:<3}", serial, element=atom[0]
                )
    structure: Structure = builder.get_structure()
    return structure


def from_structure(structure: Structure, model: int = 0) -> Backbone:
    """The backbone of one model: its residues that have N, CA, C and O, the others left out.

    Of alternate locations the one of highest occupancy counts. Modified residues count as what
    they were made of (MSE as M).

    Args:
        model: counted from 0.

    Raises:
        InputError: no such model, or no residue with a whole backbone.
    """
    from Bio.Data.PDBData import protein_letters_3to1_extended

    models = list(structure)
    if not 0 <= model < len(models):
        raise InputError(f"{structure.id}: model {model} of {len(models)}; count them from 0")
    known = {**protein_letters_3to1_extended, **ONE_LETTER}
    rows = [
        (
            [residue[atom].coord for atom in ATOMS],
            known.get(residue.get_resname().strip(), UNKNOWN),
            chain.id.strip(),
            residue.id[1],
            residue.id[2].strip(),
        )
        for chain in models[model]
        for residue in chain
        if all(atom in residue for atom in ATOMS)
    ]
    if not rows:
        raise InputError(f"{structure.id}: no residue with {', '.join(ATOMS)}; is it a protein?")
    coords, letters, chains, numbers, codes = zip(*rows, strict=True)
    return Backbone(
        np.array(coords, np.float64),
        "".join(letters),
        np.array(chains),
        np.array(numbers),
        np.array(codes),
        str(structure.id),
    )
