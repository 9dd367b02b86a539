"""Conformers led by what is given, with the packaged weights: what is kept is kept."""

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers, rdMolTransforms

from sciffusion import sample
from sciffusion.core.cond import Cond
from sciffusion.domains.molecule.chem import from_mol
from sciffusion.domains.molecule.potentials import BOLTZMANN, MMFF94

SMILES = "OCCc1ccccc1"


def embedded(smiles, seed=1):
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=seed) == 0
    return mol


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Chem.MolToMolFile(embedded(SMILES), "a.sdf")
    Chem.MolToMolFile(embedded("CCCC"), "chain.sdf")
    (tmp_path / "d.txt").write_text("# ends\n1 4 3.2\n")
    (tmp_path / "far.txt").write_text("1 99 3.2\n")
    (tmp_path / "text.txt").write_text("1 two 3.2\n")
    (tmp_path / "two.smi").write_text("CCO\nCCC\n")
    return tmp_path


def drawn(*settings):
    sample.main(["domain=molecule", "n=2", "out=o.sdf", "device=cpu", *settings])
    return list(Chem.SDMolSupplier("o.sdf", removeHs=False))


def places(mol, atoms):
    return mol.GetConformer().GetPositions()[list(atoms)]


@pytest.mark.parametrize("fix", ["scaffold", "c1ccccc1", "4-9"])
def test_a_ring_is_kept_where_it_lies(fix, folder):
    origin = Chem.MolFromMolFile("a.sdf", removeHs=False)
    found = drawn("from=a.sdf", f"fix={fix}")
    for mol in found:
        assert np.abs(places(mol, range(3, 9)) - places(origin, range(3, 9))).max() < 1e-3
    assert np.abs(places(found[0], range(3)) - places(found[1], range(3))).max() > 0.05


def test_another_molecule_takes_over_the_ring(folder):
    origin = Chem.MolFromMolFile("a.sdf", removeHs=False)
    ring = Chem.MolFromSmarts("c1ccccc1")
    for mol in drawn("from=a.sdf", "smiles=FC(F)c1ccccc1", "fix=c1ccccc1"):
        a, b = (places(m, m.GetSubstructMatch(ring)) for m in (mol, origin))
        assert np.abs(a - b).max() < 1e-3


def test_distances_and_torsions_are_matched(folder):
    mols = drawn("smiles=CCCC", "n=6", "distances=d.txt")
    ends = [np.linalg.norm(np.subtract(*places(mol, (0, 3)))) for mol in mols]
    # A sample that the noise had put in the other well stays there: anti, 3.9 Angstrom.
    assert np.mean(np.abs(np.array(ends) - 3.2) < 0.2) >= 0.5, ends
    for mol in drawn("smiles=CCCC", "torsions=1-2-3-4=-65"):
        angle = rdMolTransforms.GetDihedralDeg(mol.GetConformer(), 0, 1, 2, 3)
        assert angle == pytest.approx(-65, abs=15)


def test_little_noise_keeps_the_shape(folder):
    origin = Chem.MolFromMolFile("chain.sdf", removeHs=False)
    torsion = [
        rdMolTransforms.GetDihedralDeg(m.GetConformer(), 0, 1, 2, 3)
        for m in [origin, *drawn("from=chain.sdf", "noise=0.1")]
    ]
    off = np.abs((np.array(torsion[1:]) - torsion[0] + 180) % 360 - 180)
    assert off.max() < 40


def test_mmff_is_rdkits_with_its_gradient():
    mol = embedded(SMILES)
    x = torch.from_numpy(mol.GetConformer().GetPositions())[None]
    potential = MMFF94([from_mol(mol)])
    known = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol)
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, known)
    want = field.CalcEnergy() / (BOLTZMANN * 300)
    padded = torch.cat([x, torch.zeros(1, 2, 3)], 1).repeat(2, 1, 1).requires_grad_()
    energy = potential.energy(padded, Cond())
    assert torch.allclose(energy, torch.tensor(want).double(), rtol=1e-6)
    (slope,) = torch.autograd.grad(energy.sum(), padded)
    step = torch.zeros_like(padded)
    step[:, 2, 1] = 1e-4
    with torch.no_grad():
        up, down = (potential.energy(padded + k * step, Cond()) for k in (1, -1))
    assert torch.allclose((up - down) / 2e-4, slope[:, 2, 1], rtol=1e-4)
    assert (slope[:, len(x[0]) :] == 0).all()


def test_mmff_leads(folder):
    plain = drawn("smiles=CCCO", "n=6")
    led = drawn("smiles=CCCO", "n=6", "guide.mmff=1")

    def strain(mols):
        properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mols[0])
        return np.median([
            rdForceFieldHelpers.MMFFGetMoleculeForceField(m, properties).CalcEnergy() for m in mols
        ])  # fmt: skip

    assert strain(led) < strain(plain) + 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["from=a.sdf"], "say what to do"),
        (["fix=1-3", "smiles=CCO"], "give from=FILE"),
        (["from=a.sdf", "fix=1-99"], "no atom 20"),
        (["from=a.sdf", "fix=6-1,9"], "write 1-6"),
        (["from=a.sdf", "fix=[N]"], "is not in from=a.sdf"),
        (["from=a.sdf", "fix=c1ccccc1", "smiles=CCO"], "is not in the SMILES"),
        (["from=a.sdf", "fix=4-9", "smiles=Fc1ccccc1"], "numbers are those of from="),
        (["from=a.sdf", "fix=((("], "no SMARTS"),
        (["from=chain.sdf", "fix=scaffold"], "no ring"),
        (["from=two.smi", "fix=1"], "holds 2 molecules"),
        (["from=nowhere.sdf", "noise=1"], "nowhere.sdf"),
        (["from=a.sdf", "noise=0"], "more than 0"),
        (["from=a.sdf", "noise=1", "smiles=CCO"], "leave smiles= out"),
        (["smiles=CCO", "distances=far.txt"], "line 1: there is no atom 99"),
        (["smiles=CCO", "distances=text.txt"], "line 1"),
        (["smiles=CCO", "distances=nowhere"], "check the path"),
        (["smiles=CCCC", "torsions=1-2-3"], "not of the form"),
        (["smiles=CCO.[Na+]", "torsions=1-2-3-4=60"], "one part"),
        (["input=two.smi", "torsions=1-2-3-4=60"], "one molecule"),
        (["smiles=CCO", "guide.mmff=-1"], "guide.mmff"),
        (["smiles=CCCC", "torsions=1-2-3-4=60", "guide.limit=0"], "guide.limit"),
        (["smiles=CCCC", "torsions=1-2-3-4=60", "resample=2"], "fix="),
        (["smiles=CCO", "guidance.by=nowhere"], "nowhere"),
    ],
)
def test_wrong_requests(settings, says, folder, refused):
    assert says in refused("sample", "domain=molecule", "n=1", *settings)
