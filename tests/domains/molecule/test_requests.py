"""Records become requests in order, or one line each that says why not."""

import gzip
import re

import pytest
from rdkit import Chem

from sciffusion.domains.molecule.chem import parse_smiles
from sciffusion.domains.molecule.requests import (
    Limits,
    Names,
    Settings,
    entries,
    isomers_of,
    request_of,
    windows,
)
from sciffusion.errors import InputError


@pytest.fixture
def limits(stand_in):
    said = []
    found = Limits(stand_in.FACTS, said.append)
    found.said = said
    return found


@pytest.fixture
def ask(limits):
    return lambda smiles, name="x": request_of(parse_smiles(smiles), name, "here", limits)


def symbols(mol):
    return [a.GetSymbol() for a in mol.GetAtoms()]


def smiles_of(request):
    return Chem.MolToSmiles(Chem.RemoveHs(request.mol))


def test_records_stay_in_order_whatever_lies_between(tmp_path):
    file = tmp_path / "list.smi"
    file.write_text("CCO a\n\n# a note\nC1CC b\r\nCC a\nO\nCN a_2\nC\ta b\n", encoding="utf-8")
    found = list(windows(entries(None, str(file)), 2))
    assert [len(w) for w in found] == [2, 2, 2]
    flat = [entry for window in found for entry in window]
    assert ["line 4" in e.where for e in flat] == [False, True, False, False, False, False]
    names = [e.name for e in flat if e.mol is not None]
    assert len(set(names)) == len(names) == 5
    assert names[:2] == ["a", "a_2"]


def test_windows_do_not_change_names(tmp_path):
    file = tmp_path / "list.smi.gz"
    file.write_bytes(gzip.compress(b"".join(b"C x\nCC x\nCCC\n" for _ in range(5))))
    by_size = [
        [e.name for w in windows(entries(None, str(file)), k) for e in w] for k in (1, 4, 99)
    ]
    assert by_size[0] == by_size[1] == by_size[2]
    assert len(set(by_size[0])) == 15


def test_names():
    names = Names()
    given = ["a", "a", "a_2", "a", " b\n", "b", "", ""]
    found = [names.unique(name) for name in given]
    assert len(set(found)) == len(given)
    assert found[0] == "a"
    assert found[4] == "b"


def test_one_or_the_other():
    for pair in ((None, None), ("C", "file.smi")):
        with pytest.raises(InputError, match="one of the two"):
            list(entries(*pair))


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0}, {"n": 2**40}, {"tries": 0}, {"stereo": "enumerat"}, {"relax": "uff"},
        {"keep": "some"}, {"rmsd": 0}, {"rmsd": float("nan")}, {"window": -1}, {"window": "six"},
        {"window": float("nan")},
    ],
)  # fmt: skip
def test_settings_out_of_range(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Settings(**wrong)


@pytest.mark.parametrize(
    ("smiles", "named"),
    [
        ("[Fe]", "Fe"),
        ("C[Si](C)(C)C", "Si"),
        ("C[Hg]C", "Hg"),
        ("[Na+].[Cl-]", "Na"),
        ("CC.[Na]", "Na"),
        ("CC.C[Se]C.[Na+]", "Se"),
    ],
)
def test_unknown_elements_are_refused(smiles, named, ask):
    with pytest.raises(InputError, match=f"it holds {named}, which the network"):
        ask(smiles)


@pytest.mark.parametrize("smiles", ["CC(=O)[O-].[Na+]", "C.[K+].[I-]", "[Cl-]", "[CH3]", "[H][H]"])
def test_ions_beside_a_molecule_are_let_through(smiles, ask):
    ask(smiles)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("[S@OH1](F)(F)(F)(Cl)(Cl)Br", "stereo of atom 1 is octahedral"),
        ("[S@SP2](F)(Cl)(Br)C", "stereo of atom 1 is squareplanar"),
        ("Cc1cccc(Br)c1-c1c(C)cccc1Br |wU:7.6|", "bond 8-9 is marked as an axis"),
    ],
)
def test_stereo_that_no_answer_can_be_held_to_is_refused(asked, named, limits):
    with pytest.raises(InputError, match=named):
        request_of(Chem.MolFromSmiles(asked), "x", "here", limits)
    unmarked = re.sub(r"@\w+| \|.*", "", asked)
    request_of(Chem.MolFromSmiles(unmarked), "x", "here", limits)


def test_the_mark_of_an_allene_is_not_dropped(ask):
    for smiles in ("CC=[C@]=CC", "C(C)=[C@@]=CF", "[C@](=CC)=CC"):
        with pytest.raises(InputError, match="hand of an allene"):
            ask(smiles)
    ask("C[S@](=O)CC=C=CC")


@pytest.mark.parametrize("smarts", ["[#6]-[#8]", "CO", "[C,N]", "C~C"])
def test_queries_are_no_molecules(smarts, limits):
    with pytest.raises(InputError, match="atom 1 is a query"):
        request_of(Chem.MolFromSmarts(smarts), "x", "here", limits)


def test_an_aromatic_bond_belongs_in_a_ring(limits):
    mol = Chem.RWMol(Chem.MolFromSmiles("CCO"))
    mol.GetBondWithIdx(0).SetBondType(Chem.BondType.AROMATIC)
    with pytest.raises(InputError, match="bond 1-2 is aromatic"):
        request_of(mol, "x", "here", limits)


def test_large_molecules_are_warned_of_once(ask, limits):
    ask("C" * 19)
    assert not limits.said
    ask("C" * 20)
    ask("C" * 300)
    assert len(limits.said) == 1
    ask("C" * 15 + "." + "C" * 15)  # parts are drawn apart
    assert len(limits.said) == 1


def test_atom_order_isotopes_charges_and_radicals_stay(limits):
    for smiles in (
        "[13CH3][C@H](F)[2H]",
        "C[N+](C)(C)CC(=O)[O-]",
        "C[CH]C",
        "[NH4+]",
        "O=[N+]([O-])C",
    ):
        given = Chem.MolFromSmiles(smiles)
        request = request_of(given, "x", "here", limits)
        before = given.GetNumAtoms()
        assert symbols(request.mol)[:before] == symbols(given)
        assert set(symbols(request.mol)[before:]) <= {"H"}
        assert smiles_of(request) == Chem.MolToSmiles(given)
        assert not any(a.GetTotalNumHs() for a in request.mol.GetAtoms())


def test_unsanitized_molecules_cost_a_line(limits):
    mol = Chem.MolFromSmiles("C(C)(C)(C)(C)C", sanitize=False)
    with pytest.raises(InputError, match="valence"):
        request_of(mol, "x", "here", limits)
    with pytest.raises(InputError, match="no atoms"):
        request_of(Chem.Mol(), "x", "here", limits)


@pytest.mark.parametrize(
    ("smiles", "count"),
    [
        ("CCO", 1),
        ("C[C@H](F)Cl", 1),
        ("CC(F)Cl", 2),
        ("C/C=C/C", 1),
        ("CC=CC", 2),
        ("OC(=O)C(O)C(O)C(=O)O", 3),    # tartaric acid: one is meso
        ("CC1CCC(C)CC1", 2),            # cis and trans
        ("C1CC2CCC1C2", 1),             # norbornane: both bridgeheads outward
        ("CC1(C)C2CCC1(C)C(=O)C2", 2),  # camphor: of four, the two that exist
        ("CN1C2CCC1CC(O)C2", 2),        # tropine: endo and exo
        ("C1CCCC2C1CCCC2", 2),          # decalin
        ("CC(F)Cl.CC(F)Br", 4),
    ],
)  # fmt: skip
def test_stereoisomers_that_exist(smiles, count, ask):
    found = isomers_of(ask(smiles), 0, pytest.fail)
    assert len({smiles_of(r) for r in found}) == len(found) == count
    assert len({r.name for r in found}) == count
    flat = Chem.MolFromSmiles(smiles)
    Chem.RemoveStereochemistry(flat)
    for request in found:
        bare = Chem.RemoveHs(request.mol)
        Chem.RemoveStereochemistry(bare)
        assert Chem.MolToSmiles(bare) == Chem.MolToSmiles(flat)


def test_too_many_stereoisomers_are_cut(ask):
    said = []
    found = isomers_of(ask("C" + "C(F)" * 8 + "Cl"), 0, said.append)
    assert len({smiles_of(r) for r in found}) == len(found) == 64
    assert len(said) == 1
