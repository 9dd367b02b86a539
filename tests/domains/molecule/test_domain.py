"""The domain as the engine sees it: training steps, seeds, couplings, and the entry points."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from sciffusion import evaluate, train
from sciffusion.core.geometry import kabsch
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import DPMSolverPP, Heun
from sciffusion.domains.base import build_denoiser
from sciffusion.domains.molecule.chem import from_mol, parse_smiles, record_of
from sciffusion.domains.molecule.domain import (
    MoleculeDomain,
    atoms_together,
    batches,
    draw_coordinates,
)
from sciffusion.domains.molecule.evaluation import draw_ensembles
from sciffusion.domains.molecule.relax import relaxer
from sciffusion.domains.molecule.store import write_shard
from sciffusion.errors import InputError
from sciffusion.io.config import compose, groups
from sciffusion.training.fit import make_module

SMILES = ["C[C@H](N)C(=O)O", "CCO", "C/C=C/CO", "c1ccccc1C", "CC(=O)Nc1ccc(O)cc1", "OCC1CCC1"]
SMALL = [
    "domain=molecule", "data=store", "model.dim=32", "model.pair_dim=8", "model.layers=2",
    "model.heads=4", "trainer.batch_size=8", "trainer.accelerator=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    records = []
    for k, smiles in enumerate(SMILES):
        mol = Chem.AddHs(parse_smiles(smiles))
        rdDistGeom.EmbedMultipleConfs(mol, 4, randomSeed=k)
        alone = [Chem.Mol(mol, confId=c.GetId()) for c in mol.GetConformers()]
        records.append(record_of(alone, f"mol{k}", "made"))
    write_shard(path / "part-00000.arrow", records)
    return path


@pytest.fixture(scope="module")
def domain(store):
    return MoleculeDomain(compose("train", [*SMALL, f"data.root={store}"])["data"])


@pytest.fixture(scope="module")
def denoiser(domain, store):
    torch.manual_seed(0)
    made = build_denoiser(domain, compose("train", [*SMALL, f"data.root={store}"])).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return made


def learns(config, domain):
    module = make_module(domain, config)
    batch = domain.train_set().gather(torch.arange(8)) | {"place": torch.arange(8)}
    optimizer = module.configure_optimizers()
    losses = []
    for _ in range(6):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3
        optimizer.zero_grad()
        loss = module.loss_of(batch, 0).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses[-1] < losses[0]


@pytest.mark.parametrize(
    "choice",
    [
        [],
        ["model=transformer"],
        ["space=harmonic"],
        ["loss=edm_rigid", "sampler=dpmpp_points"],
        [
            "space=harmonic",
            "schedule=flow",
            "parameterization=x0",
            "loss=flow_rigid",
            "sampler=dpmpp_points",
        ],
        *([f"parameterization={p}", "schedule=vp", "loss=snr"] for p in ("x0", "eps", "v")),
    ],
    ids=lambda choice: "+".join(choice) or "default",
)
def test_every_recipe_learns(choice, domain, store):
    config = compose("train", [*SMALL, *choice, f"data.root={store}"])
    assert learns(config, domain)


def test_aligned_noise_gives_a_velocity_that_noisy_samplers_refuse(domain, store):
    settings = [*SMALL, f"data.root={store}", "loss=edm_rigid", "sampler=dpmpp_points"]
    assert build_denoiser(domain, compose("train", settings)).gives == "velocity"
    with pytest.raises(InputError, match="coupled by alignment"):
        make_module(domain, compose("train", [*settings, "sampler=ddpm"]))


@pytest.mark.slow
def test_two_processes_train_as_one_though_stereo_may_be_in_the_batch_of_one(
    store, finish, tmp_path
):
    settings = [
        *SMALL, "trainer.batch_size=2", "trainer.steps=12", "trainer.log_every=1",
        "trainer.picture_every=0", "trainer.precision=32-true", f"data.root={store}",
    ]  # fmt: skip
    train.main([*settings, f"run={tmp_path / 'one'}"])
    ddp = ["trainer=ddp", "trainer.devices=2"]
    code, _, err = finish("sciffusion.train", *settings, *ddp, f"run={tmp_path / 'two'}")
    assert code == 0, err
    one, two = (
        np.loadtxt(tmp_path / k / "metrics.csv", delimiter=",", skiprows=1) for k in ("one", "two")
    )
    np.testing.assert_allclose(one, two, rtol=2e-3)


def test_encoding_keeps_shapes_and_turns_them(domain):
    data = domain.train_set()
    batch = data.gather(torch.arange(6))
    plain, cond = domain.encode(batch, None)
    turned, _ = domain.encode(batch, Rng(0, torch.arange(6)))
    mask = cond.structure["mask"]
    torch.testing.assert_close(
        torch.cdist(plain, plain), torch.cdist(turned, turned), atol=1e-4, rtol=1e-4
    )
    assert (turned - plain).abs().max() > 0.1
    assert (turned.sum(1).abs() < 1e-4).all()
    assert turned[~mask].abs().max() == 0
    # Never mirrored: the best rotation brings it back.
    torch.testing.assert_close(kabsch(turned, plain, mask), plain, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("sampler", [DPMSolverPP(4), Heun(2)])
def test_a_draw_does_not_see_its_neighbours(sampler, domain, denoiser):
    graphs = [r.graph for r in [*domain.data.train, *domain.data.val]]
    numbers = [7, 99, 7, 2**32 + 3, 5, 6][: len(graphs)]
    together = draw_coordinates(denoiser, sampler, graphs, numbers, seed=3)
    assert [len(x) for x in together] == [len(g) for g in graphs]
    for graph, number, x in zip(graphs, numbers, together, strict=True):
        (alone,) = draw_coordinates(denoiser, sampler, [graph], [number], seed=3)
        np.testing.assert_allclose(x, alone, atol=2e-3, rtol=1e-3)
    small = draw_coordinates(denoiser, sampler, graphs, numbers, 3, most_atoms=1)
    for x, y in zip(together, small, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-3, rtol=1e-3)


def test_a_batch_that_does_not_fit_is_halved(domain, denoiser):
    class Narrow(DPMSolverPP):
        def __call__(self, *arguments, index, **named):
            if len(index) > room:
                raise torch.OutOfMemoryError("out of memory")
            return super().__call__(*arguments, index=index, **named)

    graphs, room = [r.graph for r in domain.data.train], 100
    whole = draw_coordinates(denoiser, Narrow(3), graphs, range(len(graphs)))
    room = 1
    for x, y in zip(
        whole, draw_coordinates(denoiser, Narrow(3), graphs, range(len(graphs))), strict=True
    ):
        np.testing.assert_allclose(x, y, atol=2e-3, rtol=1e-3)
    room = 0
    with pytest.raises(InputError, match="does not fit"):
        draw_coordinates(denoiser, Narrow(3), graphs, range(len(graphs)))


@pytest.mark.parametrize("most", [0, 1.5, "x"])
def test_atoms_of_a_batch_are_a_whole_number(most):
    with pytest.raises(InputError, match="most_atoms="):
        atoms_together(most, "cpu")


def test_batches_bound_memory_and_lose_nobody():
    sizes = [5, 80, 12, 12, 200, 7, 30] * 5
    groups_ = batches(sizes, 300)
    assert sorted(k for rows in groups_ for k in rows) == list(range(len(sizes)))
    for rows in groups_:
        longest = max(sizes[k] for k in rows)
        assert len(rows) == 1 or len(rows) * longest <= 300


def test_facts_travel_as_json(domain):
    again = MoleculeDomain(facts=json.loads(json.dumps(domain.facts())))
    assert [g.smiles for g in again.examples] == [g.smiles for g in domain.examples]
    with pytest.raises(InputError, match="needs the training data"):
        _ = again.data


def test_every_config_of_the_domain_is_tried_above():
    assert set(groups()["space"]) == {"euclidean", "zero_com", "harmonic"}
    assert {"points", "transformer"} <= set(groups()["model"])


@pytest.mark.slow
def test_train_resume_evaluate(store, tmp_path):
    run = tmp_path / "run"
    settings = [
        *SMALL, f"data.root={store}", f"run={run}", "trainer.log_every=1", "trainer.preview=2",
        "sampler.steps=2",
    ]  # fmt: skip
    train.main([*settings, "trainer.steps=4"])
    train.main([f"run={run}", "trainer.steps=6"])
    once = tmp_path / "once"
    train.main([*settings[:-4], f"run={once}", *settings[-3:], "trainer.steps=6"])
    rows = [(p / "metrics.csv").read_text().splitlines() for p in (run, once)]
    steps = [[line.split(",")[0] for line in r] for r in rows]
    assert steps[0] == steps[1]
    evaluate.main([f"run={run}", "molecules=1", "conformers=2", "tries=1", "peers=[etkdg]"])
    table = json.loads((run / "metrics.json").read_text())
    assert any("ETKDGv3" in row["name"] for row in table["rows"])
    assert (run / "report.html").stat().st_size > 10_000


def test_what_is_measured_may_be_relaxed_first():
    """Bonds a third too long are made good; what no force field knows is judged as it came."""
    mol = Chem.AddHs(parse_smiles("CCO"))
    rdDistGeom.EmbedMultipleConfs(mol, 2, randomSeed=0)
    graph = from_mol(mol)
    long = [1.3 * c.GetPositions() for c in mol.GetConformers()]

    def found(relax):
        return draw_ensembles(lambda *_: long, [graph], [2], 1, relax=relax)

    assert [len(records[0].coords) for records in found(None)] == [2, 0]
    first, returned = found(relaxer("mmff", print))
    assert np.allclose(first[0].coords, long)
    assert len(returned[0].coords) == 2

    def unknown(mol):
        raise InputError("its atoms are not known")

    assert len(found(unknown)[1][0].coords) == 0


def test_training_from_a_store_needs_no_chemistry(store, tmp_path):
    """So that a machine that only trains needs neither RDKit nor PyTorch Geometric."""
    settings = [*SMALL, f"data.root={store}", "trainer.steps=2", "trainer.preview=2", "run=out"]
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('rdkit', 'torch_geometric', 'Bio', 'posebusters', 'ase'))\n"
        f"from sciffusion import train; train.main({settings!r})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "out" / "model.safetensors").exists()
