"""The length of the average is chosen in every domain by its own measure."""

import json

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from support.backbones import made
from support.protein_run import SMALL as SMALL_PROTEIN

from sciffusion import ema, train
from sciffusion.domains.base import DOMAINS, domain_class
from sciffusion.domains.molecule.chem import parse_smiles, record_of
from sciffusion.domains.molecule.store import write_shard as write_molecules
from sciffusion.domains.protein.store import write_shard as write_backbones
from sciffusion.errors import InputError

TRAINED = [
    "trainer.steps=8", "trainer.batch_size=4", "trainer.snapshots.number=8", "rate.warmup=1",
    "trainer.picture_every=0", "trainer.preview=2", "trainer.accelerator=cpu",
]  # fmt: skip
SWEPT = ["lengths=0.1,0.2", "seeds=1", "report_seeds=2,3", "workers=1", "device=cpu"]
SMALL_MOLECULE = [
    "model.dim=16", "model.pair_dim=8", "model.layers=1", "model.heads=4", "sampler.steps=3",
    "data.val_share=0.4",
]  # fmt: skip


def molecules(path):
    records = []
    for k, smiles in enumerate(["CCO", "CCCO", "CC(C)O", "CCN", "CCCC", "COC"]):
        mol = Chem.AddHs(parse_smiles(smiles))
        rdDistGeom.EmbedMultipleConfs(mol, 4, randomSeed=k)
        alone = [Chem.Mol(mol, confId=c.GetId()) for c in mol.GetConformers()]
        records.append(record_of(alone, f"mol{k}", "made"))
    write_molecules(path / "part-00000.arrow", records)
    data = ["domain=molecule", "data=store", f"data.root={path}"]
    return [*data, *SMALL_MOLECULE], ["conformers=2", "tries=1"]


def backbones(path):
    chains = [made(24 + 2 * k, seed=k, cluster=k, name=f"chain {k}") for k in range(12)]
    write_backbones(path / "part-00000.arrow", chains)
    data = ["domain=protein", "data=backbones", f"data.root={path}", "data.val_share=0.3"]
    return [*data, *SMALL_PROTEIN], ["n=4", "measures.lengths=24-30"]


def test_every_domain_names_its_measure():
    assert all(domain_class(name).headline for name in DOMAINS)


def swept(data, how, run):
    train.main([*data, *TRAINED, f"run={run}"])
    ema.main([f"run={run}", *SWEPT, *how])
    found = json.loads((run / "ema" / "ema.json").read_text())
    assert found["length"] in (0.1, 0.2)
    assert np.isfinite([*found["result"], *found["own_result"]]).all()
    return found


@pytest.mark.slow
def test_backbones(tmp_path):
    (tmp_path / "store").mkdir()
    found = swept(*backbones(tmp_path / "store"), tmp_path / "run")
    assert found["metric"] == domain_class("protein").headline
    assert found["settings"]["lengths"] == "24-30"


@pytest.mark.slow
def test_molecules(tmp_path):
    (tmp_path / "store").mkdir()
    data, how = molecules(tmp_path / "store")
    found = swept(data, [*how, "metric=bonds changed, first draw"], tmp_path / "run")
    assert found["metric"] == "bonds changed, first draw"
    # Nothing that a network draws after eight steps has the right bonds: no AMR to choose by
    with pytest.raises(InputError, match="'AMR-R mean' has no finite value at any length"):
        ema.main([f"run={tmp_path / 'run'}", *SWEPT, *how])
