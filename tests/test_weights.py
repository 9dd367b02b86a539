"""The weights that come with the library: small, described, and what users meet first."""

import json
import re

import numpy as np
import pytest
from Bio.PDB import PDBParser
from rdkit import Chem

from sciffusion import Backbones, Conformers, resources, sample
from sciffusion.domains.base import load_model
from sciffusion.domains.molecule.chem import from_mol
from sciffusion.domains.molecule.stereo import right
from sciffusion.domains.protein.backbone import CA
from sciffusion.domains.protein.secondary import HELIX, psea
from sciffusion.domains.protein.structure import from_structure
from sciffusion.domains.protein.validity import TRANS, ca_distances, clashing, left_handed, near

DOMAINS = ["molecule", "protein"]
MEGABYTE = 1_000_000


@pytest.mark.parametrize("domain", DOMAINS)
def test_weights_are_small_and_have_a_card(domain):
    folder = resources.weights(domain).parent
    sizes = [f.stat().st_size for f in folder.rglob("*.safetensors")]
    assert max(sizes) <= 16 * MEGABYTE
    assert sum(sizes) <= 24 * MEGABYTE
    card = (folder / "CARD.md").read_text()
    for word in ("Data", "Compute", "Licence", "python -m sciffusion.train"):
        assert word in card


@pytest.mark.parametrize("domain", DOMAINS)
def test_weights_build_their_network_and_name_no_place_of_a_machine(domain):
    _, denoiser, config = load_model(resources.weights(domain))
    assert all(p.isfinite().all() for p in denoiser.parameters())
    assert config["domain"] == domain
    assert not re.findall(r'"/', json.dumps(config))


def test_the_first_command_of_molecules_needs_no_run(tmp_path):
    out = tmp_path / "alanine.sdf"
    sample.main(["domain=molecule", "smiles=C[C@H](N)C(=O)O", "n=4", f"out={out}"])
    mols = list(Chem.SDMolSupplier(str(out), removeHs=False))
    assert len(mols) == 4
    for mol in mols:
        assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == Chem.CanonSmiles("C[C@H](N)C(=O)O")


def test_from_python_both_hands_are_served_as_asked():
    for smiles in ("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", r"C/C=C\CO"):
        (mol,) = Conformers.from_pretrained().sample(smiles, n=3)
        coords = [c.GetPositions() for c in mol.GetConformers()]
        assert len(coords) == 3
        assert right(np.stack(coords), from_mol(mol)).all()


def test_backbones_of_the_first_command_are_chains(tmp_path):
    """A few of the default are whole, folded and free of clashes, as real ones are."""
    out = tmp_path / "designs"
    sample.main(["domain=protein", "length=48-64", "n=3", f"out={out}/"])
    files = sorted(out.glob("design_*.pdb"))
    assert len(files) == 3
    for path in files:
        b = from_structure(PDBParser(QUIET=True).get_structure(path.stem, path))
        assert 48 <= len(b) <= 64
        assert near(ca_distances(b), TRANS).mean() > 0.97
        assert not clashing(b).any()
        assert left_handed(b) == 0
        ca = b.coords[:, CA]
        assert np.sqrt(((ca - ca.mean(0)) ** 2).sum(-1).mean()) < 2 * 2.2 * len(b) ** 0.38


def test_backbones_from_python_hear_what_they_are_told():
    model = Backbones.from_pretrained(device="cpu")
    asked = "L" + 21 * "H" + 3 * "L" + 24 * "H" + "L"
    (helices,) = model.sample(length=50, n=1, ss=asked)
    (strands,) = model.sample(length=50, n=1, helix=0.0, strand=0.5)
    assert (psea(helices.coords[:, CA]) == HELIX).mean() > 0.6
    assert (psea(strands.coords[:, CA]) == HELIX).mean() < 0.2
