"""`Conformers` from Python."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from rdkit import Chem

from sciffusion import resources
from sciffusion.domains.molecule import Conformers, serve
from sciffusion.errors import InputError


class Nothing(torch.nn.Module):
    """A domain and a denoiser of which only the facts are asked."""

    def __init__(self, facts):
        super().__init__()
        self.facts = lambda: facts


@pytest.fixture
def model(stand_in, monkeypatch):
    drawn = []

    def drawing(*args):
        def draw(graphs, numbers):
            drawn.extend(numbers)
            return stand_in.draw(graphs, numbers)

        return draw

    monkeypatch.setattr(serve, "drawing", drawing)
    monkeypatch.setattr("sciffusion.domains.sampling.check", lambda *_: None)
    nothing = Nothing(stand_in.FACTS)
    found = Conformers(nothing, nothing, {}, torch.device("cpu"))
    found.drawn = drawn
    sample = found.sample
    found.sample = lambda *a, **k: sample(*a, sampler=object(), **k)
    return found


def test_smiles_molecules_and_lists(model):
    mol = Chem.MolFromSmiles("OC[C@H](N)F")
    given = Chem.Mol(mol)
    for mols, count in (("CCO", 1), (mol, 1), (["CCO", mol, "O"], 3), ((mol,), 1), ([], 0)):
        found = model.sample(mols, n=2)
        assert [m.GetNumConformers() for m in found] == [2] * count
    assert Chem.MolToSmiles(mol) == Chem.MolToSmiles(given)
    assert mol.GetNumAtoms() == given.GetNumAtoms()
    (found,) = model.sample(mol, n=1)
    symbols = [a.GetSymbol() for a in found.GetAtoms()]
    assert symbols[:5] == ["O", "C", "C", "N", "F"]
    assert set(symbols[5:]) == {"H"}


def test_own_coordinates_are_not_used(model):
    mol = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    mol.AddConformer(Chem.Conformer(mol.GetNumAtoms()))
    (a,), (b,) = model.sample(mol, n=1), model.sample("CCO", n=1)
    np.testing.assert_array_equal(a.GetConformer().GetPositions(), b.GetConformer().GetPositions())


def test_names(model):
    named = Chem.MolFromSmiles("CC")
    named.SetProp("_Name", "ethane")
    found = model.sample([named, named, "C"], n=1)
    assert len({m.GetProp("_Name") for m in found}) == 3
    assert found[0].GetProp("_Name") == "ethane"


def test_wrong_ones_are_told_before_any_drawing(model):
    with pytest.raises(InputError, match="molecule 2 of 3: SMILES 'C1CC'"):
        model.sample(["CCO", "C1CC", "[Fe]"])
    assert not model.drawn


def test_what_is_no_molecule_is_told(model):
    """As where RDKit gave None for a SMILES that it could not read."""
    with pytest.raises(InputError, match="molecule 2 of 3: None is no molecule"):
        model.sample(["C", None, "CC"])
    with pytest.warns(UserWarning, match="molecule 2 of 2"):
        assert model.sample(["C", 7], n=1, errors="skip")[1] is None


def test_any_collection_will_do(model):
    smiles = ["C", "CO"]
    for given in (tuple(smiles), np.array(smiles), (s for s in smiles)):
        found = model.sample(given, n=1)
        assert [Chem.MolToSmiles(Chem.RemoveHs(m)) for m in found] == smiles


def test_skip(model):
    with pytest.warns(UserWarning, match="molecule") as said:
        found = model.sample(["C1CC", "CCO", "[Fe]", "C"], n=2, errors="skip")
    assert [m and m.GetNumConformers() for m in found] == [None, 2, None, 2]
    assert ["molecule 1 of 4" in str(w.message) for w in said] == [True, False]


def test_enumerate(model):
    found = model.sample(["CCO", "CC(F)Cl"], n=3, stereo="enumerate")
    assert [m.GetNumConformers() for m in found] == [3, 3, 3]
    assert len({Chem.MolToSmiles(Chem.RemoveHs(m)) for m in found}) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0}, {"n": 2.5}, {"n": "3"}, {"tries": None}, {"seed": 0.5}, {"relax": "uff"},
        {"errors": "ignore"}, {"stereo": "x"}, {"window": -1}, {"rmsd": "x"},
    ],
)  # fmt: skip
def test_wrong_settings(wrong, model):
    with pytest.raises(InputError, match=next(iter(wrong))):
        model.sample("C", **wrong)


def test_ase(model):
    pytest.importorskip("ase")
    (mol,) = model.sample("CC(=O)N", n=2, relax="mmff")
    for atoms, conformer in zip(model.ase(mol), mol.GetConformers(), strict=True):
        assert atoms.get_chemical_formula() == "C2H5NO"
        np.testing.assert_array_equal(atoms.positions, conformer.GetPositions())
        assert atoms.info["energy_method"] == "MMFF94s"


def test_no_packaged_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "PACKAGE", tmp_path)
    with pytest.raises(InputError, match="train"):
        Conformers.from_pretrained()
    with pytest.raises(InputError, match="nowhere"):
        Conformers.from_pretrained(tmp_path / "nowhere")


def test_importing_is_cheap():
    code = (
        "import sys, sciffusion.domains.molecule; assert not {'torch', 'rdkit'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
