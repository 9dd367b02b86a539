import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdMolAlign
from scipy.spatial.transform import Rotation

from sciffusion.domains.molecule.chem import from_mol, from_smiles, to_mol
from sciffusion.domains.molecule.graph import Record
from sciffusion.domains.molecule.peers import etkdg
from sciffusion.domains.molecule.rmsd import (
    best_rmsd,
    rmsd_matrices,
    rmsd_matrix,
    symmetric_matches,
    without_hydrogens,
)
from sciffusion.errors import InputError

MOLECULES = (
    "CCCc1ccccc1CCO",
    "CC(C)(C)c1cc(C(F)(F)F)cc([N+](=O)[O-])c1",  # two rotors and a nitro group: 72 ways
    "NC(=[NH2+])CCC(=O)[O-]",  # an amidinium and a carboxylate
    "O=S(=O)(O)CCP(=O)(O)O",
    "C[C@H](N)C(=O)N[C@@H](C)C(=O)O",
    "CC(=O)[O-].CC(=O)O",  # two parts
    "C#CC#N",  # on a line
    "CO",
    "C",
)


def ensemble(smiles, n=5, seed=1):
    graph = from_smiles(smiles)
    return Record(graph, etkdg(graph, n, seed))


def moved(x, rng):
    turned = np.stack([Rotation.random(random_state=rng).apply(y) for y in x])
    return (turned + rng.normal(size=(len(x), 1, 3))).astype(np.float32)


@pytest.mark.parametrize("smiles", MOLECULES)
def test_agrees_with_rdkit(smiles):
    a, b = ensemble(smiles, 4, 1), ensemble(smiles, 3, 2)
    ours = rmsd_matrix(a, b)
    probes, onto = (Chem.RemoveHs(to_mol(r.graph, r.coords)) for r in (a, b))
    theirs = [
        [rdMolAlign.GetBestRMS(Chem.Mol(probes), onto, i, j) for j in range(len(b.coords))]
        for i in range(len(a.coords))
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_does_not_see_motion_nor_the_order_of_atoms():
    record = ensemble("CC(C)(C)OC(=O)NCc1ccccc1")
    rng = np.random.default_rng(0)
    order = rng.permutation(len(record.graph))
    shuffled = from_mol(Chem.RenumberAtoms(to_mol(record.graph), order.tolist()))
    other = Record(shuffled, moved(record.coords[:, order], rng))
    own = rmsd_matrix(record, record)
    np.testing.assert_allclose(rmsd_matrix(record, other), own, atol=1e-4)
    np.testing.assert_allclose(own, own.T, atol=1e-9)
    np.testing.assert_allclose(np.diag(own), 0, atol=1e-5)


def test_alike_atoms_may_change_places_and_hands_may_not():
    record = ensemble("CC(C)(C)c1ccc([N+](=O)[O-])cc1", 1)
    bare, heavy = without_hydrogens(to_mol(record.graph))
    x = record.coords[:, heavy]
    matches = symmetric_matches(bare, bare)
    for match in matches[1:]:
        assert best_rmsd(x, x[:, match]).item() > 0.1  # atom on atom they do not fit
        assert best_rmsd(x, x[:, match], matches).item() == pytest.approx(0, abs=1e-4)

    chiral = ensemble("F[C@](Cl)(Br)CO", 1)
    mirrored = Record(chiral.graph, chiral.coords * [-1, 1, 1])
    assert rmsd_matrix(chiral, mirrored).item() > 0.2


def test_fewer_matches_bound_the_rmsd_from_above():
    a, b = ensemble("CC(C)(C)c1ccc(C(C)(C)C)cc1", 3, 1), ensemble("CC(C)(C)c1ccc(C(C)(C)C)cc1", 2)
    best, capped = rmsd_matrix(a, b), rmsd_matrix(a, b, most=5)
    assert (capped >= best - 1e-9).all()
    assert (capped > best + 1e-3).any()


def test_large_sets_are_cut_into_pieces_that_make_the_whole():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 6, 3)), rng.normal(size=(290, 6, 3))  # more pairs than one go
    matches = np.array([range(6), [1, 0, 2, 3, 4, 5]])
    whole = best_rmsd(a, b, matches)
    for i, j in ((0, 0), (299, 289), (225, 7)):
        pair = min(best_rmsd(a[[i]], b[[j]][:, m]).item() for m in matches)
        assert whole[i, j] == pytest.approx(pair, abs=1e-9)
        rotation, rssd = Rotation.align_vectors(a[i] - a[i].mean(0), b[j] - b[j].mean(0))
        assert best_rmsd(a[[i]], b[[j]]).item() == pytest.approx(rssd / 6**0.5, abs=1e-9)
        assert rotation.single


def test_processes_give_what_one_gives_and_no_conformers_give_no_rows():
    pairs = [(ensemble(s, 3), ensemble(s, 2, 2)) for s in MOLECULES[:3]]
    empty = Record(pairs[0][0].graph, pairs[0][0].coords[:0])
    pairs.append((empty, pairs[0][1]))
    finished = []
    alone, shared = rmsd_matrices(pairs), rmsd_matrices(pairs, 2, finished.append)
    for one, other in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one, other)
    assert alone[-1].shape == (0, 2)
    assert sum(finished) == 4


def test_hydrogen_alone_has_nothing_to_compare():
    record = ensemble("[H][H]", 2)
    assert (rmsd_matrix(record, record) == 0).all()


def test_two_molecules_have_no_rmsd():
    with pytest.raises(InputError, match="RMSD of two molecules, CCO and CCN"):
        rmsd_matrix(ensemble("CCO", 1), ensemble("CCN", 1))
    with pytest.raises(InputError, match="two molecules"):
        rmsd_matrix(ensemble("CCO", 1), ensemble("CCCO", 1))
