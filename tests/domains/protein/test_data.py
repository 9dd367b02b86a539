"""Training data: passes by cluster, crops, batches of like size, folds that are told."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.backbones import made
from support.protein_run import SMALL

from sciffusion.core.rng import Rng
from sciffusion.data.order import Ordered
from sciffusion.domains.protein.data import (
    FEW,
    UNKNOWN_SS,
    Chains,
    Folds,
    Store,
    by_cluster,
    coordinate_std,
    crop,
    places,
)
from sciffusion.domains.protein.domain import SAID, SHARED, ProteinDomain
from sciffusion.domains.protein.store import write_shard
from sciffusion.errors import InputError

FAMILY = [made(30 + k, seed=k, cluster=0) for k in range(9)]
ALONE = [made(45, "helix", seed=20), made(50, "strand", seed=21)]
CHAINS = Chains(FAMILY + ALONE)


def test_a_pass_takes_one_chain_of_each_cluster():
    """However large a family is, it counts as one; its members take turns."""
    stream = Ordered(CHAINS, seed=0, batch_size=16)
    taken = torch.cat([stream._permutation(e) for e in range(3)])
    assert len(stream.dataset) % 3 == 0
    assert len(stream.dataset) >= FEW
    label = CHAINS.label[taken]
    share = torch.bincount(label, minlength=3) / len(taken)
    assert (share - 1 / 3).abs().max() < 0.01
    members = torch.bincount(taken[label == 0], minlength=9)
    assert members.min() > 0.6 * members.float().mean()


def test_there_are_as_many_classes_as_labels():
    """A chain without a cluster is a class of its own."""
    assert ProteinDomain.of(FAMILY + ALONE, ALONE).facts()["classes"] == 1 + int(CHAINS.label.max())


def test_batches_hold_what_went_in():
    rows = torch.tensor([3, 9, 10])
    batch = CHAINS.gather(rows)
    assert batch["mask"].sum(1).tolist() == [33, 45, 50]
    assert batch["mask"].shape[1] % 16 == 0
    for k, i in enumerate(rows.tolist()):
        b = (FAMILY + ALONE)[i]
        assert torch.equal(batch["x"][k, : len(b)], torch.from_numpy(b.coords))
    assert (batch["x"][~batch["mask"]] == 0).all()
    assert (batch["secondary"][~batch["mask"]] == UNKNOWN_SS).all()
    # All but the ends, which have no torsions to tell a fold by
    assert (batch["secondary"][1, 3:42] == 1).all()
    assert (batch["secondary"][2, 3:47] == 2).all()


def test_crops_are_runs_of_residues_from_anywhere():
    batch = CHAINS.gather(torch.full((200,), 10))  # 50 residues
    cut = crop(batch, 20, Rng(0, torch.arange(200)))
    assert cut["x"].shape == (200, 20, 4, 3)
    first = cut["residue"][:, 0]
    assert torch.equal(cut["residue"], first[:, None] + torch.arange(20))
    assert set(first.tolist()) == set(range(31))
    whole = torch.from_numpy(ALONE[1].coords)
    assert torch.equal(cut["x"][7], whole[first[7] : first[7] + 20])
    short = crop(CHAINS.gather(torch.tensor([0, 10])), 40, Rng(0, torch.arange(2)))
    assert short["mask"].sum(1).tolist() == [30, 40]


def test_missing_residues_leave_a_gap():
    b = made(20, "helix")
    cut = b[np.r_[0:8, 11:20]]
    assert places(cut).tolist() == [*range(8), *range(11, 20)]
    unnumbered = replace(cut, number=np.arange(17))
    assert places(unnumbered)[8] == 9  # the bond is missing, so something is


def test_sigma_data_is_measured():
    x = np.random.default_rng(0).normal(0, 7, (400, 4, 3))
    b = replace(made(400), coords=x)
    assert coordinate_std([b]) == pytest.approx(7, rel=0.05)


def test_clusters_stay_on_one_side():
    split = by_cluster([made(20, seed=k, cluster=k % 40) for k in range(120)], 0.2)
    sides = [{b.cluster for b in part} for part in (split.train, split.val)]
    assert not sides[0] & sides[1]
    assert 0.05 < len(split.val) / 120 < 0.4


def test_store_and_its_settings(tmp_path):
    write_shard(tmp_path / "part-00000.arrow", FAMILY + ALONE)
    source = Store(str(tmp_path), most=45)
    loaded = source.load()
    assert max(map(len, loaded.train + loaded.val)) == 45
    for wrong in ({"val_share": 0.0}, {"longest": 2}, {"most": 0}):
        with pytest.raises(InputError, match=r"data\."):
            Store(str(tmp_path), **wrong)
    with pytest.raises(InputError, match="prepare"):
        Store(str(tmp_path / "nothing")).load()


def test_embedded_folds_are_built_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path))
    first = Folds(count=4).load()
    monkeypatch.setattr("sciffusion.domains.protein.synthetic.fold", None)  # not built again
    second = Folds(count=4).load()
    assert [b.name for b in first.train] == [b.name for b in second.train]
    assert all(b.source == "synthetic" for b in second.train + second.val)


def domain(tmp_path):
    write_shard(tmp_path / "part-00000.arrow", FAMILY + ALONE)
    node = {"_target_": "sciffusion.domains.protein.data.Store", "root": str(tmp_path)}
    return ProteinDomain({**node, "longest": 40})


def test_some_are_told_their_fold_and_others_their_shares(tmp_path):
    d, n = domain(tmp_path), 2000
    batch = CHAINS.gather(torch.full((n,), 9))
    x, cond = d.encode(batch, Rng(0, torch.arange(n)))
    assert x.shape[1] == 40
    assert torch.allclose(x.mean((1, 2)), torch.zeros(n, 3), atol=1e-4)
    told = (cond.condition["secondary"] != UNKNOWN_SS).any(1)
    shares = (cond.condition["content"] >= 0).all(1)
    assert not (told & shares).any()
    for found, expected in ((told, SAID), (shares, SHARED)):
        error = abs(float(found.float().mean()) - expected)
        assert error < 5 * (expected * (1 - expected) / n) ** 0.5
    assert float(cond.condition["content"][shares][:, 0].min()) > 0.8  # a helix


def test_turned_but_never_mirrored(tmp_path):
    d = domain(tmp_path)
    batch = CHAINS.gather(torch.full((64,), 3))
    x, _ = d.encode(batch, Rng(0, torch.arange(64)))
    n, ca, c = (x[:, 10, k] for k in range(3))
    volume = torch.linalg.det(torch.stack([n - ca, c - ca, x[:, 11, 0] - ca], 1))
    assert torch.allclose(volume, volume[:1].expand(64), rtol=1e-3)
    assert float((x[0] - x[1]).abs().max()) > 1


def test_requests_and_what_comes_of_them(tmp_path):
    d = domain(tmp_path)
    shape, cond = d.prior_cond(torch.arange(3), {"lengths": [[12], [7, 9], [20]]})
    assert shape == (32, 4, 3)
    x = torch.randn(3, *shape)
    back = d.decode(x, cond)
    assert [b.chains for b in back] == [["A"], ["A", "B"], ["A"]]
    assert np.array_equal(back[1].coords, x[1, :16].numpy())
    assert back[1].number.tolist() == [*range(1, 8), *range(1, 10)]
    assert len(d.join([back, back])) == 6
    with pytest.raises(InputError, match="at least one"):
        d.prior_cond(torch.arange(1), {"lengths": [[0]]})


def test_training_from_a_store_needs_neither_biopython_nor_rdkit(tmp_path):
    """Machines to train on have torch, e3nn and Arrow; files are read elsewhere."""
    write_shard(tmp_path / "part-00000.arrow", [made(24, seed=k) for k in range(4)])
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['Bio', 'rdkit', 'tmtools']));"
        "from sciffusion.train import main; main(sys.argv[1:])"
    )
    settings = [
        "domain=protein", "data=backbones", f"data.root={tmp_path}", "data.val_share=0.5",
        "trainer.steps=1", "trainer.batch_size=2", "trainer.picture_every=0", *SMALL,
        f"run={tmp_path / 'run'}",
    ]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, *settings], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()
