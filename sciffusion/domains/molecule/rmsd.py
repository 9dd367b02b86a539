"""Symmetry-corrected heavy-atom RMSD of all pairs of conformers at once.

As RDKit's GetBestRMS of molecules without hydrogens: the least RMSD over rotations and over all
ways to lay one molecule's atoms on the other's, with the two ends of a terminal conjugated group
(carboxylate, nitro, amidine) taken as alike. The ways are listed once a molecule. For each,
RMSD^2 = (|A|^2 + |B|^2 - 2 L) / n with L the largest root of the quartic
x^4 - 2 p x^2 - 8 det(M) x + 2 |M^T M|^2 - p^2, p = |M|^2, M = A^T B (Theobald 2005,
10.1107/S0108767305015266), found by Newton's method from above for all pairs together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from rdkit import Chem, rdBase

from sciffusion.data.pool import Progress, shared_out
from sciffusion.domains.molecule.chem import to_mol
from sciffusion.domains.molecule.graph import Record
from sciffusion.errors import InputError

MOST_MATCHES = 50_000
"""Beyond this many symmetric matches the rest is not tried, and the RMSD is an upper bound."""

_CHUNK = 1 << 16  # pairs of one go: 3x3 matrices that stay in the cache
_TERMINAL = "[O,N;D1;$([O,N;D1]-[*]=[O,N;D1]),$([O,N;D1]=[*]-[O,N;D1])]~[*]"


def without_hydrogens(mol: Chem.Mol) -> tuple[Chem.Mol, Int[np.ndarray, " n"]]:
    """(the heavy atoms' molecule without conformers, their indices in `mol`).

    All hydrogens go, also the one that tells the side of an imine, which `Chem.RemoveHs` keeps.
    """
    kept = np.array([a.GetIdx() for a in mol.GetAtoms() if a.GetAtomicNum() > 1], dtype=np.int64)
    bare = Chem.Mol(mol)
    bare.RemoveAllConformers()
    with rdBase.BlockLogs():
        return Chem.RemoveAllHs(bare, sanitize=False), kept


def symmetric_matches(
    mol: Chem.Mol, onto: Chem.Mol, most: int = MOST_MATCHES
) -> Int[np.ndarray, "p n"]:
    """Ways to lay the heavy atoms of `mol` on those of `onto`: match[i] is where atom i goes.

    Both come without hydrogens; the order of their atoms may differ.

    Raises:
        InputError: they are not the same molecule.
    """
    query = Chem.RWMol(mol)
    alike = Chem.MolFromSmarts("*-,=*").GetBondWithIdx(0)
    for atom, neighbour in mol.GetSubstructMatches(Chem.MolFromSmarts(_TERMINAL)):
        query.GetAtomWithIdx(atom).SetFormalCharge(0)
        query.ReplaceBond(query.GetBondBetweenAtoms(atom, neighbour).GetIdx(), alike)
    settings = Chem.SubstructMatchParameters()
    settings.uniquify, settings.useQueryQueryMatches = False, True
    settings.maxMatches = most
    matches = onto.GetSubstructMatches(query, settings)
    if mol.GetNumAtoms() != onto.GetNumAtoms() or not matches:
        names = " and ".join(Chem.MolToSmiles(m) for m in (mol, onto))
        raise InputError(f"RMSD of two molecules, {names}: compare conformers of one")
    return np.array(matches, dtype=np.int64)


def rmsd_matrix(a: Record, b: Record, most: int = MOST_MATCHES) -> Float[np.ndarray, "k l"]:
    """RMSD in Angstrom of every conformer of `a` to every one of `b`, heavy atoms only.

    Raises:
        InputError: they are not the same molecule.
    """
    if not len(a.coords) or not len(b.coords):
        return np.zeros((len(a.coords), len(b.coords)))
    mol, heavy = without_hydrogens(to_mol(a.graph))
    onto, kept = (mol, heavy) if a.graph is b.graph else without_hydrogens(to_mol(b.graph))
    if not len(heavy) and not len(kept):  # the hydrogen molecule
        return np.zeros((len(a.coords), len(b.coords)))
    matches = symmetric_matches(mol, onto, most)
    return best_rmsd(a.coords[:, heavy], b.coords[:, kept], matches)


def _matrix(pair: tuple[Record, Record]) -> Float[np.ndarray, "k l"]:
    return rmsd_matrix(*pair)


def rmsd_matrices(
    pairs: Sequence[tuple[Record, Record]],
    workers: int | None = 1,
    progress: Progress | None = None,
) -> list[Float[np.ndarray, "k l"]]:
    """`rmsd_matrix` of many pairs, shared between processes (see `pool.shared_out`)."""
    return shared_out(_matrix, pairs, workers, progress)


def best_rmsd(
    a: Float[np.ndarray, "k n 3"],
    b: Float[np.ndarray, "l n 3"],
    matches: Int[np.ndarray, "p n"] | None = None,
) -> Float[np.ndarray, "k l"]:
    """RMSD in Angstrom of every conformer of `a` to every one of `b`, least over rotations.

    Args:
        a, b: conformers in Angstrom.
        matches: the atom of `b` that each atom of `a` may be laid on; the least over them is taken.
    """
    matches = np.arange(a.shape[1])[None] if matches is None else matches
    out = np.full((len(a), len(b)), np.inf)
    if not out.size:
        return out
    a, b = (x.astype(np.float64) - x.mean(1, keepdims=True, dtype=np.float64) for x in (a, b))
    bound = ((a**2).sum((1, 2))[:, None] + (b**2).sum((1, 2))) / 2
    rows = max(1, _CHUNK // len(b))
    ways = max(1, _CHUNK // (min(rows, len(a)) * len(b)))
    for start in range(0, len(a), rows):
        some = slice(start, start + rows)
        left = np.ascontiguousarray(a[some].transpose(2, 0, 1))[:, None]
        best = np.zeros((len(a[some]), len(b)))
        for first in range(0, len(matches), ways):
            laid = b[:, matches[first : first + ways]].transpose(3, 2, 1, 0)  # (3, n, p, l)
            m = left @ laid.reshape(*laid.shape[:2], -1)
            m = m.reshape(*m.shape[:3], -1, len(b))
            np.maximum(best, _largest_overlap(m, bound[some, None]).max(1), out=best)
        out[some] = np.sqrt(np.maximum(2 * (bound[some] - best) / a.shape[1], 0))
    return out


def _largest_overlap(
    m: Float[np.ndarray, "3 3 k p l"], bound: Float[np.ndarray, "k 1 l"]
) -> Float[np.ndarray, "k p l"]:
    """max over rotations of tr(R M), which is never above `bound`."""
    p = (m**2).sum((0, 1))
    minors = np.cross(m[1], m[2], axis=0)
    det8 = 8 * (m[0] * minors).sum(0)
    gram = sum(
        (1 if i == j else 2) * (m[:, i] * m[:, j]).sum(0) ** 2
        for i in range(3)
        for j in range(i, 3)
    )
    last = 2 * gram - p**2
    x = np.minimum(bound, np.sqrt(3 * p))
    for _ in range(50):
        slope = 4 * x * (x**2 - p) - det8
        value = (x**2 - 2 * p) * x**2 - det8 * x + last
        step = np.divide(value, slope, out=np.zeros_like(x), where=slope > 0)
        step = np.maximum(step, 0)
        x -= step
        if (step <= 1e-12 * x).all():
            break
    return x
