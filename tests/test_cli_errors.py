"""Bad input: one line, exit code 2, nothing left behind that a later run would trust."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sciffusion import train
from sciffusion.io.run import Run


@pytest.fixture
def copy(run, tmp_path):
    return Run(shutil.copytree(run, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data=cifar"], "did you mean cifar10?"),
        (["domain=imge"], "did you mean image?"),
        (["trainer.stepz=3"], "did you mean trainer.steps?"),
        (["nonsense"], "not name=value"),
        (["trainer.steps=abc"], "whole number"),
        (["trainer.steps=0"], "at least 1"),
        (["trainer.preview=0"], "at least 1"),
        (["trainer.ema_decay=1.5"], "ema_decay"),
        (["seed=x"], "whole number"),
        (["seed=99999999999999999999"], "64-bit"),
        (["drop_condition=2"], "drop_condition"),
        (["trainer.precision=16-mixed"], "bf16-mixed"),
        (["trainer.strategy=fsdp"], "auto or ddp"),
        (["trainer.accelerator=abacus"], "abacus"),
        (["trainer=ddp", "trainer.devices=3"], "does not divide over 3"),
        (["optimizer.lr=-1"], "learning rate"),
        (["data.augment.shift=8"], "data.augment.shift"),
        (["parameterization=eps", "schedule=flow"], "eps-prediction"),
        (["parameterization=eps", "schedule=zero_terminal"], "zero terminal SNR"),
        (["domain=molecule", "data=digits"], "belongs to domain=image"),
        (["model=points"], "belongs to domain=molecule"),
        (["space=harmonic"], "does not fit domain=image"),
        (["sampler=ddpm", "sampler.variance=learned"], "learned_variance=true"),
        (["sampler.steps=0"], "at least 1 step"),
        (["model._target_=os.system"], "may not be built"),
        (["model.channel_mult=[1,2,2,2,2]"], "8"),
        (["logger.csv._target_=sciffusion.nowhere"], "_target_"),
        (["init=nowhere"], "nowhere"),
        (["data=npz", "data.path=nowhere.npz"], "nowhere.npz"),
        (["data=folder", "data.root=nowhere"], "nowhere"),
        (["data=folder"], "data.root"),
        (["run=/dev/full/x"], "/dev/full"),
    ],
)
def test_train(arguments, says, refused, tiny, tmp_path):
    assert says in refused("train", *tiny, "trainer.accelerator=cpu", *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["sample", "evaluate"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "run=DIR"),
        (["run=nowhere"], "nowhere"),
        (["run=COPY", "domain=protein"], "is of domain=image"),
        (["run=FILE"], "FILE"),
        (["run=COPY", "n=0"], "at least 1"),
        (["run=COPY", "n=some"], "whole number"),
        (["run=COPY", "batch=0"], "at least 1"),
        (["run=COPY", "device=abacus"], "abacus"),
        (["run=COPY", "clip=hard"], "clip"),
        (["run=COPY", "sampler=ddimm"], "did you mean ddim?"),
        (["run=COPY", "sampler=ddim", "sampler.steps=0"], "at least 1 step"),
        (["run=COPY", "sampler=ddim", "sampler.eta=3"], "eta"),
        (["run=COPY", "sampler=ddpm", "sampler.variance=learned"], "learned_variance"),
        (["run=COPY", "sampler.stepz=3"], "did you mean sampler.steps?"),
        (["run=COPY", "grid=carras"], "did you mean karras?"),
        (["run=COPY", "guidance.scale=2", "guidance.low=3", "guidance.high=2"], "interval"),
    ],
)
def test_sample_and_evaluate(name, arguments, says, refused, copy, tmp_path):
    (tmp_path / "FILE").write_text("no run")
    arguments = [a.replace("COPY", str(copy.path)) for a in arguments]
    assert says in refused(name, *arguments)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["FILE", "copy"]
    assert not list(copy.samples.glob("*.npz"))


@pytest.mark.parametrize("argument", ["bits_images=-1", "bits_steps=0", "seed=-1"])
def test_what_is_measured(argument, refused, copy):
    assert f"{argument} must be at least" in refused("evaluate", f"run={copy.path}", argument)


@pytest.mark.parametrize("label", ["10", "-1", "cat", "[1,2]"])
def test_labels(label, refused, copy):
    assert "its classes: 0, 1" in refused("sample", f"run={copy.path}", f"label={label}")


def test_truncated_weights(refused, copy):
    copy.weights.write_bytes(copy.weights.read_bytes()[:1000])
    for name in ("sample", "evaluate"):
        assert "truncated" in refused(name, f"run={copy.path}")


def test_truncated_and_foreign_checkpoints(refused, copy, tiny):
    whole, config = copy.checkpoint.read_bytes(), copy.config.read_bytes()
    copy.checkpoint.write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused("train", f"run={copy.path}", "trainer.steps=30")
    torch.save({"state_dict": {}}, copy.checkpoint)
    assert "not made by" in refused("train", f"run={copy.path}", "trainer.steps=30")
    copy.checkpoint.write_bytes(whole)
    assert "another configuration" in refused("train", f"run={copy.path}", "model.channels=16")
    assert copy.config.read_bytes() == config  # a refused setting is not remembered
    train.main([f"run={copy.path}", "trainer.steps=21"])


def test_a_run_does_not_become_another(refused, copy):
    config = copy.config.read_bytes()
    for choice in ("data=cifar10", "schedule=flow", "loss=simple", "model=unet_cifar10"):
        said = refused("train", f"run={copy.path}", choice)
        assert choice in said
        assert "init=" in said
    assert copy.config.read_bytes() == config


def test_garbled_run_configuration(refused, copy):
    copy.config.write_text("a: [")
    for name in ("train", "evaluate"):
        assert "config.yaml" in refused(name, f"run={copy.path}")


def test_outputs_that_cannot_be_written(refused, copy, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "File exists" in refused("sample", f"run={copy.path}", "n=2", f"out={tmp_path / 'file'}")
    assert "/dev/full" in refused("sample", f"run={copy.path}", "n=2", "out=/dev/full/x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "samples.npz").symlink_to("/dev/full")
    assert "samples.npz" in refused("sample", f"run={copy.path}", "n=2", f"out={tmp_path / 'out'}")
    assert not (tmp_path / "out" / "grid.png").exists()
    assert "File exists" in refused("train", f"run={tmp_path / 'file'}")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_log_on_a_full_disk(refused, tiny, tmp_path, monkeypatch):
    """The place where numbers are appended as they come is full."""
    from sciffusion.training.logs import Csv

    begin = Csv.start

    def start(self, run, step):
        begin(self, run, step)
        self._file.close()
        self._file = Path("/dev/full").open("a")  # noqa: SIM115
        import csv

        self._writer = csv.writer(self._file)

    monkeypatch.setattr(Csv, "start", start)
    monkeypatch.setattr(Csv, "close", lambda self: None)
    assert "No space left" in refused("train", *tiny, f"run={tmp_path / 'run'}")


def picture(path, size=8, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((size, size), np.uint8)).convert(mode).save(path)


def empty(root):
    root.mkdir()


def without_pictures(root):
    root.mkdir()
    (root / "notes.txt").write_text("nothing here")


def mixed_sizes(root):
    for k in range(4):
        picture(root / "a" / f"{k}.png", 8 + 4 * (k == 2))


def unreadable(root):
    for k in range(4):
        picture(root / "a" / f"{k}.png")
    (root / "a" / "2.png").write_bytes(b"\x89PNG no more")


def a_class_of_one(root):
    for k in range(4):
        picture(root / "a" / f"{k}.png")
    picture(root / "b" / "0.png")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (empty, "pictures"),
        (without_pictures, "pictures"),
        (mixed_sizes, "2.png"),
        (unreadable, "2.png"),
        (a_class_of_one, "single image"),
    ],
)
def test_image_folders(make, says, refused, tiny, tmp_path):
    make(tmp_path / "pictures")
    assert says in refused("train", *tiny, "data=folder", f"data.root={tmp_path / 'pictures'}")
    assert [p.name for p in tmp_path.iterdir()] == ["pictures"]


def test_arrays(refused, tiny, tmp_path):
    file = tmp_path / "x.npz"
    x = np.zeros((10, 8, 8), np.float32)
    x[3, 0, 0] = np.nan
    for array, says in ((x, "record 3"), (np.array([{"a": 1}], dtype=object), "cannot be read")):
        np.savez(file, x=array)
        assert says in refused("train", *tiny, "data=npz", f"data.path={file}")


@pytest.fixture
def unlabelled(tiny, tmp_path):
    """A run on pictures without classes, with its data."""
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x=x)
    run = tmp_path / "unlabelled"
    train.main([*tiny, "data=npz", f"data.path={tmp_path / 'x.npz'}", f"run={run}"])
    return run


def test_a_model_without_classes(refused, unlabelled, tiny, tmp_path, run):
    assert "without classes" in refused("sample", f"run={unlabelled}", "label=3")
    assert "without a condition" in refused("sample", f"run={unlabelled}", "guidance.scale=2")
    # Another number of classes is another network.
    said = refused("train", *tiny, f"init={unlabelled}", f"run={tmp_path / 'new'}")
    assert "weight" in said
    assert not (tmp_path / "new").exists()
    (tmp_path / "x.npz").unlink()
    for name in ("evaluate", "train"):
        assert "x.npz does not exist" in refused(name, f"run={unlabelled}")
