"""Relaxing goes downhill to where forces vanish, by the field that it names."""

import importlib.util

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers, rdMolTransforms

from sciffusion.domains.molecule import energy
from sciffusion.domains.molecule.chem import parse_smiles
from sciffusion.domains.molecule.relax import MMFF, XTB, relaxer
from sciffusion.errors import InputError


def embedded(smiles, n=3):
    mol = parse_smiles(smiles)
    rdDistGeom.EmbedMultipleConfs(mol, n, randomSeed=1)
    return mol


def mmff_forces(mol, k):
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol, "MMFF94s")
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties, confId=k)
    return field.CalcEnergy(), np.abs(field.CalcGrad()).max()


def positions(mol):
    return np.stack([c.GetPositions() for c in mol.GetConformers()])


@pytest.mark.parametrize("smiles", ["CC(=O)Nc1ccc(O)cc1", "C[NH3+]", "C[CH2]", "O"])
def test_mmff(smiles):
    mol = embedded(smiles)
    start = positions(mol)
    before = MMFF(pytest.fail, steps=0)(mol)
    assert (positions(mol) == start).all()
    np.testing.assert_allclose(before.values, [mmff_forces(mol, k)[0] for k in range(3)], rtol=1e-6)
    after = MMFF(pytest.fail)(mol)
    assert before.method == after.method == "MMFF94s"
    assert (after.values <= before.values).all()
    for k in range(3):
        value, force = mmff_forces(mol, k)
        assert value == pytest.approx(after.values[k], abs=1e-6)
        assert force < 0.1  # kcal/mol/A


def test_uff_stands_in_and_says_so_once():
    said = []
    field = MMFF(said.append)
    boronic = embedded("OB(O)c1ccccc1")
    boronic.SetProp("_Name", "phenylboronic acid")
    for _ in range(2):
        assert field(boronic).method == "UFF"
    assert len(said) == 1
    assert "phenylboronic acid" in said[0]
    assert field(embedded("CCO")).method == "MMFF94s"


def test_what_no_field_knows_is_refused():
    with pytest.raises(InputError, match="relax=none"):
        MMFF(pytest.fail)(embedded("FS(F)(F)(F)(F)F"))


def beside(smiles, distance):
    """Two molecules, the second shifted along x."""
    mol = embedded(smiles, 1)
    second = Chem.GetMolFrags(mol)[1]
    x = mol.GetConformer().GetPositions()
    x[list(second), 0] += distance
    mol.GetConformer().SetPositions(x)
    return mol


@pytest.mark.parametrize("method", ["mmff", "xtb"])
def test_parts_do_not_feel_one_another(method):
    if method == "xtb":
        pytest.importorskip("tblite")
    found = [
        relaxer(method, pytest.fail)(beside("[NH4+].O", distance)).values[0]
        for distance in (6.0, 60.0)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_xtb_finds_water():
    pytest.importorskip("tblite")
    mol = embedded("O", 2)
    found = XTB()(mol)
    assert found.method == "GFN2-xTB"
    assert found.values[0] == pytest.approx(found.values[1], abs=1e-2)
    for conformer in mol.GetConformers():  # measured: 0.957 A and 104.5 degrees
        assert rdMolTransforms.GetBondLength(conformer, 0, 1) == pytest.approx(0.957, abs=0.01)
        assert rdMolTransforms.GetAngleDeg(conformer, 1, 0, 2) == pytest.approx(104.5, abs=4)


def test_xtb_is_an_extra(monkeypatch):
    find = importlib.util.find_spec
    hidden = lambda name, *a: None if name == "tblite" else find(name, *a)  # noqa: E731
    monkeypatch.setattr(energy.importlib.util, "find_spec", hidden)
    with pytest.raises(InputError, match="pip install"):
        relaxer("xtb", print)


def test_names():
    assert relaxer("none", print) is None
    with pytest.raises(InputError, match="none, mmff or xtb"):
        relaxer("uff", print)
