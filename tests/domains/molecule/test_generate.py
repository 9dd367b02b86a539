"""Whatever is drawn, what is returned is what was asked for, and always the same."""

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdForceFieldHelpers
from scipy.spatial.distance import pdist

from sciffusion.domains.molecule.chem import ENERGY, parse_smiles
from sciffusion.domains.molecule.generate import Generator, attempts
from sciffusion.domains.molecule.relax import Energies
from sciffusion.domains.molecule.requests import Limits, Settings, request_of

SMILES = [
    "C[C@H](N)C(=O)O/N=C/C",
    "CC(F)C=CC",
    "c1ccccc1C(=O)[O-].[Na+]",
    "C[C@@H](O)[C@H](F)Cl.C/C=C\\C",
    "[2H]C([2H])([2H])O",
    "O",
    "C[CH]C",
]


@pytest.fixture
def ask(stand_in):
    def call(smiles, draw=None, **settings):
        limits = Limits(stand_in.FACTS, pytest.fail)
        asked = [request_of(parse_smiles(s), s, "here", limits) for s in smiles]
        return Generator(draw or stand_in.draw, Settings(**settings), pytest.fail)(asked)

    return call


def coordinates(answer):
    return [c.GetPositions() for c in answer.mol.GetConformers()]


def read_back(mol, conformer):
    """SMILES with the stereo that the coordinates show."""
    mol = Chem.Mol(mol, confId=conformer.GetId())
    Chem.RemoveStereochemistry(mol)
    Chem.AssignStereochemistryFrom3D(mol)
    return Chem.MolToSmiles(Chem.RemoveHs(mol))


@pytest.mark.parametrize("relax", ["none", "mmff"])
def test_stereo_is_right_in_space(relax, ask):
    answers = ask(SMILES, n=4, relax=relax)
    assert [a.request.name for a in answers] == SMILES
    for smiles, answer in zip(SMILES, answers, strict=True):
        assert answer.mol.GetNumConformers() == 4
        assert answer.problem == ""
        for conformer in answer.mol.GetConformers():
            said = conformer.GetProp("SMILES")
            assert read_back(answer.mol, conformer) == said
            assert Chem.MolFromSmiles(said).HasSubstructMatch(
                Chem.MolFromSmiles(smiles), useChirality=True
            )
    tally = answers[0].tally
    assert tally.first == tally.stereo == tally.conformers == 4
    assert sum(a.tally.stereo_right for a in answers) < sum(a.tally.stereo for a in answers)


def test_open_centres_are_drawn_a_conformer(ask):
    (answer,) = ask(["CC(F)C=CC"], n=24)
    found = [c.GetProp("SMILES") for c in answer.mol.GetConformers()]
    assert len(set(found)) == 4


def test_a_conformer_is_the_same_beside_others_and_among_more(ask):
    together = dict(zip(SMILES, ask(SMILES, n=3), strict=True))
    for smiles in (SMILES[0], SMILES[1], SMILES[3]):
        (alone,) = ask([smiles], n=5)
        for a, b in zip(coordinates(together[smiles]), coordinates(alone), strict=False):
            np.testing.assert_array_equal(a, b)
        assert len({x.tobytes() for x in coordinates(alone)}) == 5


def test_parts_that_are_alike_are_drawn_apart(ask):
    (answer,) = ask(["CCCC.CCCC"], n=1)
    x = coordinates(answer)[0]
    first, second = (pdist(x[list(atoms)]) for atoms in Chem.GetMolFrags(answer.mol))
    assert np.abs(first - second).max() > 0.01


def test_seeds_choose_other_isomers(ask):
    found = {
        tuple(c.GetProp("SMILES") for c in ask(["CC(F)C(Cl)O"], n=5, seed=s)[0].mol.GetConformers())
        for s in range(4)
    }
    assert len(found) > 1


def test_one_that_cannot_be_served_leaves_the_others(ask, stand_in):
    def stubborn(graphs, numbers):
        found = stand_in.draw(graphs, numbers)
        wrong = {"C[C@H](F)Cl": [-1, 1, 1], "C[C@@H](F)Cl": [1, 1, 1]}
        return [
            stand_in.embed(g, 1) * wrong["C[C@H](F)Cl"] if g.smiles in wrong else x
            for g, x in zip(graphs, found, strict=True)
        ]

    answers = ask(["CCO", "C[C@H](F)Cl", "C[C@H](O)F"], stubborn, n=2, tries=5)
    assert [a.mol.GetNumConformers() for a in answers] == [2, 0, 2]
    assert "got 0 of 2" in answers[1].problem
    assert "centre at atom 2" in answers[1].problem


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda x, n: x * np.nan, "not finite"),
        (lambda x, n: x * 3, "broken"),
        (lambda x, n: x * 0, "bond"),
    ],
)
def test_no_conformer_is_better_than_a_wrong_one(harm, says, ask, stand_in):
    def harmful(graphs, numbers):
        pairs = zip(stand_in.draw(graphs, numbers), numbers, strict=True)
        return [harm(x, n).astype(np.float32) for x, n in pairs]

    (answer,) = ask(["CCO"], harmful, n=2, tries=3)
    assert answer.mol.GetNumConformers() == 0
    assert says in answer.problem


def test_some_are_kept_where_others_fail(ask, stand_in):
    seen = set()

    def sometimes(graphs, numbers):
        seen.update(numbers)
        pairs = zip(stand_in.draw(graphs, numbers), numbers, strict=True)
        return [x * (np.nan if n % 2 else 1) for x, n in pairs]

    (answer,) = ask(["CCO"], sometimes, n=6, tries=1)
    assert 0 < answer.mol.GetNumConformers() < 6
    assert len(seen) == 6
    assert f"got {answer.mol.GetNumConformers()} of 6" in answer.problem


def test_energies_are_those_of_the_conformers(ask):
    (relaxed,) = ask(["CCCCO"], n=4, relax="mmff")
    (kept,) = ask(["CCCCO"], n=4, keep="diverse", rmsd=0.01)
    (plain,) = ask(["CCCCO"], n=4)
    for answer in (relaxed, kept):
        mol = answer.mol
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, "MMFF94s")
        for conformer in mol.GetConformers():
            field = rdForceFieldHelpers.MMFFGetMoleculeForceField(
                mol, properties, confId=conformer.GetId()
            )
            assert conformer.GetDoubleProp(ENERGY) == pytest.approx(field.CalcEnergy(), abs=1e-4)
            assert conformer.GetProp("energy_method") == "MMFF94s"
    assert not plain.mol.GetConformer().HasProp(ENERGY)


@pytest.mark.parametrize(
    ("harm", "energy", "says"),
    [(np.array([-1, 1, 1]), 0.0, "centre at atom 2"), (np.ones(3), np.nan, "relaxed")],
)
def test_what_relaxing_spoils_is_not_returned(harm, energy, says, stand_in):
    def spoil(mol):
        for conformer in mol.GetConformers():
            conformer.SetPositions(conformer.GetPositions() * harm)
        return Energies(np.full(mol.GetNumConformers(), energy), "none")

    generator = Generator(stand_in.draw, Settings(n=2, tries=3), pytest.fail)
    generator.relax = spoil
    limits = Limits(stand_in.FACTS, pytest.fail)
    (answer,) = generator([request_of(parse_smiles("C[C@H](F)Cl"), "x", "here", limits)])
    assert answer.mol.GetNumConformers() == 0
    assert says in answer.problem


def test_windows_and_diversity_leave_less(ask):
    (every,) = ask(["CCCCCO"], n=12, relax="mmff")
    (low,) = ask(["CCCCCO"], n=12, relax="mmff", window=1)
    (few,) = ask(["CCCCCO"], n=12, relax="mmff", keep="diverse", rmsd=0.5)
    energies = [c.GetDoubleProp(ENERGY) for c in every.mol.GetConformers()]
    expected = [k + 1 for k, e in enumerate(energies) if e <= min(energies) + 1]
    assert [c.GetIntProp("conformer") for c in low.mol.GetConformers()] == expected
    assert 1 < few.mol.GetNumConformers() < 12
    assert few.problem == low.problem == ""
    assert low.tally.conformers == len(expected)


def test_lone_atoms_need_no_network(ask):
    def never(graphs, numbers):
        pytest.fail("asked")

    (answer,) = ask(["[Cl-]"], never, n=2)
    assert answer.mol.GetNumConformers() == 2


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 20])
def test_attempts(most):
    assert [a for numbers in attempts(most) for a in numbers] == list(range(most))
