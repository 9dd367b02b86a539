"""Parts of a molecule stand side by side and keep their own shapes."""

import numpy as np
import pytest
from rdkit import Chem
from scipy.spatial.distance import cdist, pdist

from sciffusion.domains.molecule.chem import parse_smiles
from sciffusion.domains.molecule.fragments import GAP, parts_of, side_by_side, van_der_waals


@pytest.mark.parametrize(
    "smiles", ["CC(=O)[O-].[Na+]", "O.CCO.O", "[Cl-].C[NH3+].c1ccccc1", "C1CC1"]
)
def test_side_by_side(smiles):
    mol = parse_smiles(smiles)
    mol = Chem.RenumberAtoms(mol, np.random.default_rng(0).permutation(mol.GetNumAtoms()).tolist())
    parts = parts_of(mol)
    assert sorted(i for p in parts for i in p.atoms) == list(range(mol.GetNumAtoms()))
    rng = np.random.default_rng(1)
    coords = [rng.normal(size=(len(p.atoms), 3)) * 3 + 50 for p in parts]
    whole = side_by_side(parts, coords)
    radius = van_der_waals(mol)
    for k, part in enumerate(parts):
        elements = [mol.GetAtomWithIdx(int(i)).GetAtomicNum() for i in part.atoms]
        assert elements == part.graph.z.tolist()
        np.testing.assert_allclose(pdist(whole[part.atoms]), pdist(coords[k]))
        for other in parts[:k]:
            apart = cdist(whole[part.atoms], whole[other.atoms])
            touching = radius[part.atoms][:, None] + radius[other.atoms]
            assert (apart - touching).min() >= GAP - 1e-9
    if len(parts) > 1:
        np.testing.assert_allclose(whole.mean(0), 0, atol=1e-9)
