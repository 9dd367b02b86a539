"""What is kept covers what is left out, and nothing kept is superfluous."""

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdMolAlign, rdMolTransforms
from scipy.spatial.transform import Rotation

from sciffusion.domains.molecule.chem import add_conformers, parse_smiles
from sciffusion.domains.molecule.ensemble import keep, rmsd_rows, within


def conformers(smiles, n=15, seed=3):
    mol = parse_smiles(smiles)
    rdDistGeom.EmbedMultipleConfs(mol, n, randomSeed=seed)
    return mol


def matrix(mol):
    row = rmsd_rows(mol)
    return np.stack([row(k) for k in range(mol.GetNumConformers())])


def test_rmsd_is_that_of_rdkit():
    mol = conformers("CC(C)Cc1ccc(cc1)C(C)C(=O)[O-]", 4)
    bare = Chem.RemoveHs(mol)
    found = matrix(mol)
    for i in range(4):
        for j in range(i):
            expected = rdMolAlign.GetBestRMS(Chem.Mol(bare), Chem.Mol(bare), i, j)
            assert found[i, j] == pytest.approx(expected, abs=1e-4)


def test_moving_and_renumbering_like_atoms_is_no_difference():
    mol = conformers("c1ccccc1", 1)
    x = mol.GetConformer().GetPositions()
    turned = Rotation.from_euler("xyz", [1, 2, 3]).apply(x) + 5
    shifted = x[[*np.roll(np.arange(6), 2), *(6 + np.roll(np.arange(6), 2))]]
    assert matrix(add_conformers(mol, np.stack([x, turned, shifted]))).max() < 1e-3


def test_a_mirror_image_is_another_conformer():
    mol = conformers("CCCC", 1)
    rdMolTransforms.SetDihedralDeg(mol.GetConformer(), 0, 1, 2, 3, 60)
    x = mol.GetConformer().GetPositions()
    found = matrix(add_conformers(mol, np.stack([x, x * [-1, 1, 1]])))
    assert found[0, 1] > 0.3


def test_how_parts_lie_is_no_difference():
    mol = conformers("CCO.CCN", 1)
    x = mol.GetConformer().GetPositions()
    moved = x.copy()
    second = list(Chem.GetMolFrags(mol)[1])
    moved[second] = Rotation.from_euler("xyz", [1, 2, 3]).apply(moved[second]) + 9
    assert matrix(add_conformers(mol, np.stack([x, moved]))).max() < 1e-3


@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0, 9.0])
def test_diverse_ones_cover_all(threshold):
    mol = conformers("CCCCCO")
    energies = np.random.default_rng(0).normal(size=15)
    kept = keep(mol, energies, threshold)
    rmsd = matrix(mol)
    among = rmsd[np.ix_(kept, kept)] + np.diag([np.inf] * len(kept))
    assert among.min() >= threshold
    assert rmsd[:, kept].min(1).max() < threshold
    assert energies.argmin() in kept
    assert (np.diff(kept) > 0).all()


def test_window():
    energies = np.array([3.0, -1.0, 5.0, 4.999, np.nan])
    assert within(energies, 6).tolist() == [0, 1, 2, 3]
    assert within(energies, 0).tolist() == [1]
    mol = conformers("CCCCCO", 5)
    kept = keep(mol, energies, 0.01, window=4)
    assert kept.tolist() == [0, 1]


def test_what_can_have_no_two_conformers():
    for smiles in ("[H][H]", "[Cl-]", "O"):
        assert keep(conformers(smiles, 3), None, 0.5).tolist() == [0]
    assert keep(conformers("CCCC", 3), None).tolist() == [0, 1, 2]
