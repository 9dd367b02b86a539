"""Open centres: each isomer that exists is as likely as the others."""

from collections import Counter

import pytest
from rdkit import Chem
from scipy.stats import chisquare

from sciffusion.domains.molecule.chem import parse_smiles
from sciffusion.domains.molecule.isomers import Isomers


def picked(smiles, count):
    isomers = Isomers(parse_smiles(smiles))
    mols = [isomers.pick(f"0 {k}") for k in range(count)]
    return Counter(Chem.MolToSmiles(Chem.RemoveHs(m)) for m in mols)


@pytest.mark.parametrize("smiles", ["CC(F)Cl", "CC=CC(O)F", "CC1(C)C2CCC1(C)C(=O)C2"])
def test_every_isomer_has_the_same_chance(smiles):
    possible = {
        Chem.MolToSmiles(Chem.RemoveHs(m)) for m in Isomers(parse_smiles(smiles)).possible()
    }
    found = picked(smiles, 400)
    assert set(found) == possible
    assert chisquare(list(found.values())).pvalue > 1e-4


def test_a_name_picks_the_same_isomer():
    first, second = (Isomers(parse_smiles("CC(F)C(Cl)O")) for _ in range(2))
    for k in range(20):
        a, b = (Chem.MolToSmiles(i.pick(f"3 {k}")) for i in (first, second))
        assert a == b


def test_what_is_specified_stays():
    assert set(picked("C[C@H](F)C(Cl)O", 40)) == {
        Chem.CanonSmiles(s) for s in ("C[C@H](F)[C@@H](Cl)O", "C[C@H](F)[C@H](Cl)O")
    }


def test_where_none_embeds_centres_stay_open(monkeypatch):
    isomers = Isomers(parse_smiles("CC1(C)C2CCC1(C)C(=O)C2"))
    monkeypatch.setattr(isomers, "_possible", lambda *_: False)
    assert isomers.possible() == [isomers.mol]
    assert isomers.pick("0") is isomers.mol


def test_racemic_stereo_groups_are_open():
    mol = Chem.AddHs(Chem.MolFromSmiles("C[C@H](F)[C@@H](Cl)O |&1:1,3|"))
    found = {Chem.MolToSmiles(Chem.RemoveHs(m)) for m in Isomers(mol).possible()}
    assert len(found) == 2


@pytest.mark.parametrize("smiles", ["O/N=C1\\C=C2CN3[C@H]2[C@H]13", "C/C(F)=C1/CC2CC1CN2"])
def test_a_side_outside_the_rings_is_no_matter_of_the_rings(smiles):
    """RDKit crashes where a double bond's side is told by an atom that was cut off."""
    side = {b.GetStereo() for b in parse_smiles(smiles).GetBonds()}
    for mol in Isomers(parse_smiles(smiles)).possible():
        assert {b.GetStereo() for b in mol.GetBonds()} == side
