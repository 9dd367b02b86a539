"""Conformers for molecules that have none: ETKDGv3, relaxed with MMFF94s, like ones left out."""

from __future__ import annotations

import zlib

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from sciffusion.domains.molecule.ensemble import keep
from sciffusion.errors import InputError

STEPS = 1000
"""Steps of a relaxation, at most."""
LIKE = 0.3
"""Conformers nearer than this heavy-atom RMSD (Angstrom) are the same one."""
POOL = 1.5
"""How many conformers are made for each that is asked for."""


def conformers_of(mol: Chem.Mol, n: int, seed: int = 0) -> list[tuple[Chem.Mol, float]]:
    """[(the molecule with one conformer, its MMFF94s energy in kcal/mol)], lowest first.

    The same for a molecule whatever is computed beside it. Fewer than `n` where a molecule has no
    more that differ; NaN energies, and no relaxation, where MMFF94s has no parameters for it.

    Args:
        mol: hydrogens as atoms; open stereo comes out as chance has it.
        n: how many at most.
        seed: of the random numbers.

    Raises:
        InputError: it cannot be embedded, or it is several molecules.
    """
    if len(Chem.GetMolFrags(mol)) > 1:  # RDKit would lay one over the other
        raise InputError("it is several molecules: give each a line of its own")
    mol = Chem.Mol(mol)
    settings = rdDistGeom.ETKDGv3()
    # RDKit multiplies the seed by the conformer's number, so small ones would share conformers.
    settings.randomSeed = zlib.crc32(f"{seed} {Chem.MolToSmiles(mol)}".encode()) % (1 << 20) + 1
    settings.pruneRmsThresh = LIKE / 2
    with rdBase.BlockLogs():
        for settings.useRandomCoords in (False, True):
            if rdDistGeom.EmbedMultipleConfs(mol, round(POOL * n), settings):
                break
        else:
            raise InputError("no conformer could be embedded: is its stereo possible?")
        energies = np.full(mol.GetNumConformers(), np.nan)
        if rdForceFieldHelpers.MMFFHasAllMoleculeParams(mol):
            done = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(
                mol, maxIters=STEPS, mmffVariant="MMFF94s"
            )
            energies = np.array([energy for _, energy in done])
    ids = np.array([conformer.GetId() for conformer in mol.GetConformers()])
    known = None if np.isnan(energies).any() else energies
    kept = keep(mol, known, threshold=LIKE)
    kept = kept[np.argsort(energies[kept], kind="stable")][:n]
    return [(Chem.Mol(mol, False, int(ids[k])), float(energies[k])) for k in kept]
