"""Which conformers of a molecule to keep: those that differ, those of low energy.

RMSD is that of heavy atoms under the best rotation and the best symmetric match; a molecule of
several parts has the root mean square over its parts' atoms, since how they lie to one another says
nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from rdkit import Chem

from sciffusion.domains.molecule.fragments import parts_of
from sciffusion.domains.molecule.rmsd import best_rmsd, symmetric_matches, without_hydrogens

MOST_MATCHES = 2000
"""Symmetric matches that are tried."""

Row = Callable[[int], Float[np.ndarray, " k"]]


def rmsd_rows(mol: Chem.Mol) -> Row:
    """A function of i: RMSD in Angstrom of conformer number i to all conformers of `mol`."""
    x = np.stack([c.GetPositions() for c in mol.GetConformers()])
    parts = []
    for part in parts_of(mol):
        bare, heavy = without_hydrogens(part.mol)
        if len(heavy):
            matches = symmetric_matches(bare, bare, MOST_MATCHES)
            parts.append((x[:, part.atoms[heavy]], matches))
    heavy_atoms = sum(y.shape[1] for y, _ in parts)

    def row(i: int) -> Float[np.ndarray, " k"]:
        square = [y.shape[1] * best_rmsd(y[i : i + 1], y, m)[0] ** 2 for y, m in parts]
        return np.sqrt(np.sum(square, 0) / heavy_atoms) if parts else np.zeros(len(x))

    return row


def diverse(row: Row, count: int, threshold: float, first: int = 0) -> Int[np.ndarray, " m"]:
    """Conformers of which any two differ by `threshold` Angstrom or more; rising numbers.

    Greedy: the one farthest from all that were taken is next, until the farthest is too near.

    Args:
        row: of `rmsd_rows`.
        count: how many conformers there are.
        threshold: RMSD in Angstrom.
        first: where to begin.
    """
    taken, far = [first], row(first)
    while len(taken) < count and far.max() >= threshold:
        taken.append(int(far.argmax()))
        far = np.minimum(far, row(taken[-1]))
    return np.unique(taken)


def within(energies: Float[np.ndarray, " k"], window: float) -> Int[np.ndarray, " m"]:
    """Conformers at most `window` kcal/mol above the lowest; rising numbers."""
    return np.flatnonzero(energies <= np.nanmin(energies) + window)


def keep(
    mol: Chem.Mol,
    energies: Float[np.ndarray, " k"] | None,
    threshold: float | None = None,
    window: float | None = None,
) -> Int[np.ndarray, " m"]:
    """The conformers to keep: first those in the window, then the diverse ones among these.

    Args:
        mol: with K conformers.
        energies: (K,) kcal/mol; the lowest is where `diverse` begins.
        threshold: RMSD in Angstrom; None keeps the like ones too.
        window: kcal/mol; None keeps any.
    """
    chosen = np.arange(mol.GetNumConformers())
    if window is not None and energies is not None and len(chosen):
        chosen = within(energies, window)
    if threshold is None or len(chosen) < 2:
        return chosen
    ids = [c.GetId() for c in mol.GetConformers()]
    some = Chem.Mol(mol)
    for k in sorted(set(range(len(ids))) - set(chosen.tolist())):
        some.RemoveConformer(ids[k])
    first = 0 if energies is None else int(np.nanargmin(energies[chosen]))
    return chosen[diverse(rmsd_rows(some), len(chosen), threshold, first)]
