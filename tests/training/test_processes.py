"""Two processes do what one does."""

import numpy as np
import pytest
import torch

from sciffusion import sample, train
from sciffusion.io.run import Run, load_checkpoint

SETTINGS = ["trainer.precision=64-true", "loss=edm2", "rate.warmup=1"]
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")


@pytest.fixture(scope="module")
def one(tmp_path_factory, tiny):
    run = Run(tmp_path_factory.mktemp("one") / "run")
    train.main([*tiny, *SETTINGS, f"run={run.path}"])
    return run


def assert_close(a, b):
    logs = [np.loadtxt(r.metrics, delimiter=",", skiprows=1) for r in (a, b)]
    assert logs[0].shape == (20, 4)
    np.testing.assert_allclose(*logs, rtol=0, atol=1e-9)
    first, second = (load_checkpoint(r.checkpoint) for r in (a, b))
    for part in (lambda s: s["weights"], lambda s: s["ema"]["shadow"]):
        gaps = [(part(first)[k] - v).abs().max() for k, v in part(second).items()]
        assert max(gaps) < 1e-9
        assert next(iter(part(first).values())).dtype == torch.float64


@pytest.mark.slow
@pytest.mark.parametrize("starter", ["lightning", "torchrun"])
def test_two_processes_train_as_one(starter, one, finish, tiny, tmp_path):
    run = Run(tmp_path / "run")
    launch = TORCHRUN if starter == "torchrun" else ()
    ddp = ["trainer=ddp", "trainer.devices=2"]
    code, out, err = finish(
        *launch, "sciffusion.train", *tiny, *SETTINGS, *ddp, f"run={run.path}", cwd=tmp_path
    )
    assert code == 0, err
    assert out.count("sciffusion: run") == 1
    assert run.report.exists()
    assert_close(run, one)


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 1])
def test_two_processes_sample_as_one(n, run, finish, tmp_path):
    sample.main(
        [
            f"run={run}",
            f"n={n}",
            f"out={tmp_path / 'one'}",
            "sampler=ddim",
            "sampler.eta=1",
            "sampler.steps=20",
        ]
    )
    settings = [
        f"run={run}",
        f"n={n}",
        "sampler=ddim",
        "sampler.eta=1",
        "sampler.steps=20",
        f"out={tmp_path / 'two'}",
    ]
    code, out, err = finish(*TORCHRUN, "sciffusion.sample", *settings, cwd=tmp_path)
    assert code == 0, err
    assert out.count("wrote") == 1
    one, two = (np.load(tmp_path / k / "samples.npz") for k in ("one", "two"))
    np.testing.assert_array_equal(one["label"], two["label"])
    assert one["x"].shape == two["x"].shape == (n, 8, 8, 1)
    # Another batch size may round another way, by one count of 255.
    assert np.abs(one["x"].astype(int) - two["x"].astype(int)).max() <= 1
