"""Files of a run: whole, or refused with what is wrong."""

import json
import shutil

import pytest
import torch

from sciffusion.domains.base import load_model
from sciffusion.errors import InputError
from sciffusion.io.run import Run, load_checkpoint, load_shared, load_tensors, save_checkpoint


@pytest.fixture
def copy(run, tmp_path):
    return Run(shutil.copytree(run, tmp_path / "copy"))


def test_weights_are_the_averaged_ones(run):
    shadow = load_checkpoint(Run(run).checkpoint)["ema"]["shadow"]
    shared = load_tensors(run)
    assert shadow.keys() == shared.keys()
    assert all(torch.equal(v, shared[k]) for k, v in shadow.items())
    _, denoiser, _ = load_model(run / "model.safetensors")
    assert all(torch.equal(v, shared[k]) for k, v in denoiser.network.state_dict().items())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_files(copy, share):
    for path, load in ((copy.checkpoint, load_checkpoint), (copy.weights, load_tensors)):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=path.name):
            load(path)


class Evil:
    """Unpickling this would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_is_never_run(copy, tmp_path):
    torch.save({"format": 1, "x": Evil(tmp_path / "owned")}, copy.checkpoint)
    with pytest.raises(InputError, match="not made by sciffusion"):
        load_checkpoint(copy.checkpoint)
    assert not (tmp_path / "owned").exists()


def test_foreign_checkpoints(copy):
    for content in ([1, 2], {"state_dict": {}}, {"format": 99}):
        torch.save(content, copy.checkpoint)
        with pytest.raises(InputError, match="not made by this version"):
            load_checkpoint(copy.checkpoint)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.clear(), "not made by this version"),
        (lambda c: c.pop("facts"), "facts"),
        (lambda c: c.update(sampler=3), "sampler"),
        (lambda c: c["facts"].pop("channels"), "channels"),
        (lambda c: c["facts"].update(classes=3), "garbled|cannot make"),
        (lambda c: c.update(domain="imge"), "domain"),
        (lambda c: c["model"].update(_target_="os.system"), "may not be built"),
        (lambda c: c["schedule"].update(_target_="sciffusion.resources.os.getcwd"), "may not"),
        (lambda c: c["model"].update(channels=16), "shape"),
        (lambda c: c["model"].update(_target_="torch.nn.Identity"), "Identity|unknown weight"),
    ],
)
def test_garbled_configurations(copy, change, says):
    file = copy.path / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    with pytest.raises(InputError, match=says):
        load_model(copy.path)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"format": 1}'])
def test_config_json_that_is_none(copy, content):
    (copy.path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        load_shared(copy.path)


def test_missing_parts(copy, tmp_path):
    (copy.path / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_model(copy.path)
    for path in (tmp_path / "nowhere", tmp_path / "nowhere.safetensors"):
        with pytest.raises(InputError, match="nowhere"):
            load_model(path)


def test_a_full_disk_leaves_the_old_checkpoint(copy, monkeypatch):
    before = copy.checkpoint.read_bytes()

    def full(state, path):
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="make room"):
        save_checkpoint(copy.checkpoint, {"format": 1})
    assert copy.checkpoint.read_bytes() == before
    assert not list(copy.path.glob(".*"))
