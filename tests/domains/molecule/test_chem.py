"""Molecules go through `MolGraph` and back unchanged; what cannot is refused in one line."""

from dataclasses import replace

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from sciffusion.domains.molecule.chem import (
    ENERGY,
    from_mol,
    from_smiles,
    parse_smiles,
    record_of,
    scaffold,
    to_mol,
)
from sciffusion.domains.molecule.graph import ATOM_FEATURES
from sciffusion.errors import InputError

SMILES = [
    "O",
    "[H][H]",
    "[CH3]",
    "[O][O]",
    "C[N+](=O)[O-]",
    "C=[N+]=[N-]",
    "[O-][n+]1ccccc1",
    "c1cc[nH]c1",
    "OB(O)c1ccccc1",
    "CS(C)(=O)=O",
    "[NH3+][C@@H](C)C([O-])=O",
    "F[P-](F)(F)(F)(F)F",
    "[Na+].[Cl-]",
    "CC(=O)O.NCCN",
    "CC(=O)Nc1ccc(O)cc1",
    "C[C@H]1CC[C@@H](C)CC1",
    "C[C@H](O)[C@H](O)[C@@H](C)O",
    "C/C=C/[C@H](O)/C=C\\C",
    "F/C(Cl)=C(/Br)I",
    "C/C=N/O",
    "N/C(C)=N/C",
    "C1CCC/C=C/CC1",
    "C[S@](=O)CC",
    "C[S@@+]([O-])CC",
    "C[P@](CC)c1ccccc1",
    "CC[P@@](=O)(O)C",
    "C[Si@](F)(Cl)CC",
    "C[N@+](CC)(CCC)CCO",
    "C[C@@H]1C[N@]1C",
    "Br[C@@H](C)[C@]12C[C@H]3C[C@H](C[C@H](C3)C1)C2",
    "CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(O)=O",
]


def canonical(mol):
    return Chem.MolToSmiles(Chem.RemoveHs(mol))


def embedded(smiles, n=1, seed=7):
    mol = parse_smiles(smiles)
    assert len(rdDistGeom.EmbedMultipleConfs(mol, n, randomSeed=seed)) == n
    return mol


def column(graph, name):
    return graph.atoms[:, list(ATOM_FEATURES).index(name)].astype(int)


@pytest.mark.parametrize("smiles", SMILES)
def test_nothing_is_lost_on_the_way_there_and_back(smiles):
    graph = from_smiles(smiles)
    assert graph.smiles == Chem.CanonSmiles(smiles)
    mol = to_mol(graph)
    assert canonical(mol) == graph.smiles
    for atom in mol.GetAtoms():
        assert atom.GetTotalNumHs() == 0  # all of them are atoms
    again = from_mol(mol)
    for name in ("atoms", "bonds", "bond_features", "tetra", "tetra_sign", "ez", "ez_sign"):
        assert (getattr(again, name) == getattr(graph, name)).all(), name


@pytest.mark.parametrize("smiles", SMILES)
def test_the_order_of_atoms_does_not_matter(smiles):
    mol = parse_smiles(smiles)
    graph = from_mol(mol)
    order = np.random.default_rng(0).permutation(len(graph))
    moved = from_mol(Chem.RenumberAtoms(mol, order.tolist()))
    assert moved.smiles == graph.smiles
    assert (moved.atoms == graph.atoms[order]).all()
    assert set(order[moved.tetra[:, 0]]) == set(graph.tetra[:, 0])
    assert np.abs(moved.tetra_sign).sum() == np.abs(graph.tetra_sign).sum()
    assert np.abs(moved.ez_sign).sum() == np.abs(graph.ez_sign).sum()
    assert canonical(to_mol(moved)) == graph.smiles


@pytest.mark.parametrize("smiles", [s for s in SMILES if len(s) > 8])
def test_a_molecule_is_the_same_from_a_file_as_from_its_smiles(smiles):
    """What a network is trained on and what it is asked for."""
    mol = embedded(smiles)
    read = from_mol(Chem.MolFromMolBlock(Chem.MolToMolBlock(mol), removeHs=False))
    known = from_mol(mol)
    for name in ("atoms", "bonds", "bond_features", "tetra", "ez", "ez_sign"):
        assert (getattr(read, name) == getattr(known, name)).all(), name


@pytest.mark.parametrize("smiles", [s for s in SMILES if "@" in s or "/" in s])
def test_all_isomers_have_the_same_tables(smiles):
    """Only signs tell them apart, so a network sees an open centre where a fixed one would be."""
    mol = parse_smiles(smiles)
    graph = from_mol(mol)
    Chem.RemoveStereochemistry(mol)
    flat = from_mol(mol)
    assert (flat.tetra == graph.tetra).all()
    assert (flat.ez == graph.ez).all()
    assert not flat.tetra_sign.any()
    assert not flat.ez_sign.any()


def test_turned_signs_are_the_mirror_image():
    graph = from_smiles("C[C@H](O)[C@@H](N)C(O)=O")
    mirrored = to_mol(replace(graph, tetra_sign=-graph.tetra_sign))
    assert canonical(mirrored) == Chem.CanonSmiles("C[C@@H](O)[C@H](N)C(O)=O")


def test_categories_of_known_atoms():
    graph = from_smiles("C[N+](C)(C)Cc1ccc2CCCc2c1")
    z, ring = column(graph, "z"), column(graph, "ring")
    assert set(column(graph, "charge")[z == 7]) == {4 + 1}
    assert (column(graph, "hydrogens")[0], column(graph, "degree")[0]) == (3, 4)
    assert sorted(ring[z == 6]) == [0, 0, 0, 0, 5, 5, 5, 5, 5, 6, 6, 6, 6]
    assert sorted(column(graph, "rings")[z == 6]) == [0] * 4 + [1] * 7 + [2] * 2
    assert column(graph, "aromatic").sum() == 6
    assert not ring[z == 1].any()
    assert column(from_smiles("C1CCCCCCCCCC1"), "ring").max() == 9
    assert column(from_smiles("C[CH]C"), "radicals").tolist()[:3] == [0, 1, 0]


def test_bonds_stand_once_and_in_order():
    graph = from_smiles("C=CC#Cc1ccccc1")
    assert (graph.bonds[:, 0] < graph.bonds[:, 1]).all()
    assert (np.lexsort(graph.bonds.T[::-1]) == np.arange(len(graph.bonds))).all()
    assert np.bincount(graph.bond_features[:, 0]).tolist() == [0, 2 + 8, 1, 1, 6]


def test_isotopes_stay_in_the_text_and_maps_go():
    graph = from_smiles("[13CH3][C@H]([2H])O")
    assert graph.smiles == Chem.CanonSmiles("[13CH3][C@H]([2H])O")
    assert set(graph.z) == {1, 6, 8}
    mapped = from_smiles("[CH3:1][C@H:2]([NH2:3])[OH:4]")
    assert mapped.smiles == from_smiles("C[C@H](N)O").smiles


def test_fragments_and_scaffolds():
    assert from_smiles("CCO.[Na+].O").fragment.max() == 2
    assert from_smiles("CCCC(C)O").scaffold == ""
    stereo, flat = "C[C@H]1CC[C@@H](c2ccccc2)CC1", "OC1CCC(c2ccccc2Cl)CC1"
    assert scaffold(Chem.MolFromSmiles(stereo)) == scaffold(Chem.MolFromSmiles(flat)) != ""


@pytest.mark.parametrize(
    ("smiles", "says"),
    [
        ("", "empty"),
        ("C C", "spaces"),
        ("C1CC", "cannot be parsed"),
        ("Xx", "cannot be parsed"),
        ("CC(C)(C)(C)C", "valence"),
        ("c1cccc1", "kekulize"),
        ("*C", "dummy"),
        ("[C]", "unpaired"),
        ("[Al+5]", "charge"),
        ("[NH3]->[Cu]", "dative"),
    ],
)
def test_what_cannot_be_a_graph_says_why(smiles, says):
    with pytest.raises(InputError, match=f"(?i){says}") as error:
        from_smiles(smiles)
    assert "\n" not in str(error.value)


def test_implicit_hydrogens_are_refused():
    with pytest.raises(InputError, match="hydrogens"):
        from_mol(Chem.MolFromSmiles("CCO"))


def test_conformers_come_with_the_molecule():
    mol = embedded("C[C@H](O)F", 3)
    x = np.stack([c.GetPositions() for c in mol.GetConformers()])
    back = to_mol(from_mol(mol), x)
    assert np.allclose([c.GetPositions() for c in back.GetConformers()], x)
    assert to_mol(from_mol(mol), x[0]).GetNumConformers() == 1


@pytest.mark.parametrize("smiles", [s for s in SMILES if "@" in s or "/" in s])
def test_stereo_is_read_from_space_where_marks_are_missing(smiles):
    mol = embedded(smiles)
    known = from_mol(mol)
    Chem.RemoveStereochemistry(mol)
    read = from_mol(mol, use_3d=True)
    fixed = known.tetra_sign != 0
    assert (read.tetra_sign == known.tetra_sign)[fixed & (known.z[known.tetra[:, 0]] != 7)].all()
    assert (read.ez_sign == known.ez_sign).all()
    # What is read is what its own SMILES says, when that is read again.
    again = from_smiles(read.smiles)
    for name in ("tetra_sign", "ez_sign"):
        assert np.abs(getattr(again, name)).sum() == np.abs(getattr(read, name)).sum()


def frames(mol):
    return [Chem.Mol(mol, False, c.GetId()) for c in mol.GetConformers()]


def test_a_record_holds_all_conformers_and_their_energies():
    mols = frames(embedded("C[C@H](O)CC", 3))
    mols[0].SetProp(ENERGY, "-12.5")
    record = record_of(mols, "butanol", "here")
    assert record.coords.shape == (3, 15, 3)
    assert record.energy[0] == -12.5
    assert np.isnan(record.energy[1:]).all()
    assert (record.graph.name, record.source) == ("butanol", "here")
    assert record.graph.smiles == Chem.CanonSmiles("C[C@H](O)CC")


def test_conformers_that_differ_in_stereo_leave_it_open():
    left, right = embedded("C[C@H](O)F"), embedded("C[C@@H](O)F")
    assert record_of([left, left]).graph.tetra_sign.tolist() != [0]
    record = record_of([left, right])
    assert record.graph.tetra_sign.tolist() == [0]
    assert record.graph.smiles == "CC(O)F"


def test_another_order_of_atoms_is_refused():
    mol = embedded("CCO")
    moved = Chem.RenumberAtoms(mol, list(range(mol.GetNumAtoms()))[::-1])
    with pytest.raises(InputError, match="conformer 2"):
        record_of([mol, moved])
    with pytest.raises(InputError, match="no conformers"):
        record_of([])
