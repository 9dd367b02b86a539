import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdMolTransforms
from rdkit.Chem.rdMolDescriptors import CalcNumRotatableBonds, NumRotatableBondsOptions

from sciffusion.domains.molecule.chem import from_mol, from_smiles, to_mol
from sciffusion.domains.molecule.geometry_stats import (
    Terms,
    angle,
    geometry_distances,
    length,
    torsion,
)
from sciffusion.domains.molecule.graph import Record
from sciffusion.domains.molecule.peers import etkdg


@pytest.fixture(scope="module")
def ensembles():
    graphs = [from_smiles(s) for s in ("CCCCOC(=O)CC", "CCN(CC)CCc1ccccc1", "OCC(O)CNC=O")]
    return [Record(g, etkdg(g, 24, i)) for i, g in enumerate(graphs)]


def distances(change, records):
    pairs = [(Record(r.graph, change(r.coords)), r) for r in records]
    return geometry_distances(pairs, least=20)


def test_lengths_angles_and_torsions_are_those_of_rdkit(ensembles):
    record = ensembles[1]
    conformer = to_mol(record.graph, record.coords[0]).GetConformer()
    x = record.coords[0].astype(float)
    terms = Terms.of(record.graph).index
    for kind, ours, theirs in (
        ("bonds", length, rdMolTransforms.GetBondLength),
        ("angles", angle, rdMolTransforms.GetAngleDeg),
        ("torsions", torsion, rdMolTransforms.GetDihedralDeg),
    ):
        atoms = np.concatenate(list(terms[kind].values()))
        assert len(atoms)
        expected = [theirs(conformer, *row) for row in atoms.tolist()]
        np.testing.assert_allclose(ours(*np.moveaxis(x[atoms], 1, 0)), expected, atol=1e-3)


@pytest.mark.parametrize(
    "smiles", ["CCCC", "c1ccccc1-c1ccccc1", "CCOC(=O)CC", "C1CCCCC1", "CC#CC", "CC=CC", "CC(C)(C)C"]
)
def test_all_bonds_and_angles_count_and_rotatable_bonds_turn(smiles):
    graph = from_smiles(smiles)
    mol = to_mol(graph)
    terms = Terms.of(graph).index
    count = {kind: sum(map(len, types.values())) for kind, types in terms.items()}
    assert count["bonds"] == mol.GetNumBonds()
    degrees = [atom.GetDegree() for atom in mol.GetAtoms()]
    assert count["angles"] == sum(d * (d - 1) // 2 for d in degrees)
    turned = {tuple(sorted(row[1:3])) for rows in terms["torsions"].values() for row in rows}
    loose = NumRotatableBondsOptions.NonStrict
    assert len(turned) == CalcNumRotatableBonds(Chem.RemoveHs(mol), loose)


def test_types_do_not_depend_on_the_order_of_atoms(ensembles):
    record = ensembles[0]
    order = np.random.default_rng(0).permutation(len(record.graph))
    shuffled = from_mol(Chem.RenumberAtoms(to_mol(record.graph), order.tolist()))
    one = Terms.of(record.graph).histograms(record.coords)
    other = Terms.of(shuffled).histograms(record.coords[:, order])
    for kind in one:
        assert one[kind].keys() == other[kind].keys()
        for name in one[kind]:
            assert one[kind][name].sum() == other[kind][name].sum()
            assert np.abs(one[kind][name] - other[kind][name]).sum() <= 4  # rounding at a bin's end


def test_real_conformers_score_as_their_floor(ensembles):
    fresh = [(Record(r.graph, etkdg(r.graph, 24, 50)), r) for r in ensembles]
    for kind, found in geometry_distances(fresh, least=20).items():
        assert found.types > 2
        assert found.n == 36  # half of each molecule's references
        assert 0 < found.floor < 0.6
        assert found.distance == pytest.approx(found.floor, abs=0.12), kind


def test_each_kind_sees_its_own_distortion(ensembles):
    same = distances(lambda x: x, ensembles)
    longer = distances(lambda x: x * np.float32(1.1), ensembles)
    assert longer["bonds"].distance > 0.9
    for kind in ("angles", "torsions"):  # they do not depend on scale
        assert longer[kind].distance == pytest.approx(same[kind].distance, abs=0.02)
    flat = distances(lambda x: x * [1, 1, 0.3], ensembles)
    assert flat["angles"].distance > same["angles"].distance + 0.1
    frozen = distances(lambda x: np.repeat(x[:1], len(x), 0), ensembles)
    assert frozen["torsions"].distance > same["torsions"].distance + 0.2


def test_single_references_have_no_floor(ensembles):
    pairs = [(r, Record(r.graph, r.coords[:1])) for r in ensembles]
    found = geometry_distances(pairs, least=1)
    assert found["bonds"].floor is None
    assert found["bonds"].distance == 0  # the sample that stands against it is itself
    assert found["bonds"].n == 3


def test_molecules_without_enough_samples_are_left_out(ensembles):
    first, second, _ = ensembles
    few = Record(first.graph, first.coords[:2])
    assert geometry_distances([(few, first), (second, second)], least=20)["bonds"].n == 12
    none = geometry_distances([(few, first)])
    assert none["bonds"].n == none["bonds"].types == 0
    assert np.isnan(none["bonds"].distance)
