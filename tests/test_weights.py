"""The weights that come with the library: small, described, and what users meet first."""

import json
import re

import numpy as np
import pytest
from rdkit import Chem

from sciffusion import Conformers, resources, sample
from sciffusion.domains.base import load_model
from sciffusion.domains.molecule.chem import from_mol
from sciffusion.domains.molecule.stereo import right

DOMAINS = ["molecule"]
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


def test_the_first_command_needs_no_run(tmp_path):
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
