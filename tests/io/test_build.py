"""What a configuration may build, and what it may not."""

import pytest
import torch

from sciffusion.core.times import Karras
from sciffusion.errors import InputError
from sciffusion.io.build import build, locate


def test_nested_objects():
    sampler = build(
        {
            "_target_": "sciffusion.core.samplers.DDIM",
            "steps": 7,
            "grid": {"_target_": "sciffusion.core.times.Karras", "rho": 5.0},
        }
    )
    assert sampler.steps == 7
    assert isinstance(sampler.grid, Karras)
    assert sampler.grid.rho == 5
    assert build({"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}


def test_torch_networks_and_optimizers():
    assert locate("torch.optim.AdamW") is torch.optim.AdamW
    assert build({"_target_": "torch.nn.ReLU"}, inplace=True).inplace


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "torch.hub.load",
        "sciffusion.resources.os.system",  # `os` is imported there, but not defined there
        "sciffusion.io.run.load_checkpoint",
        "sciffusion.train.main",
        "sciffusion.data.download.download",
        "sciffusion.domains.image.sources.download",
        "sciffusion.domains.image.domain.ImageDomain",  # it would download what its data name
        "lightning.pytorch.LightningModule.load_from_checkpoint",  # it unpickles
        "sciffusion.core.rng",
        "sciffusion.core.rng.Rngg",
        "sciffusion.nowhere.Thing",
        "",
    ],
)
def test_whatever_is_not_ours_to_build_is_refused(target):
    with pytest.raises(InputError, match="_target_"):
        build({"_target_": target, "command": "true"})


def test_arguments_that_an_object_refuses():
    with pytest.raises(InputError, match=r"cannot make DDIM.*stepz"):
        build({"_target_": "sciffusion.core.samplers.DDIM", "stepz": 7})
    with pytest.raises(InputError, match=r"cannot make DDIM.*eta"):
        build({"_target_": "sciffusion.core.samplers.DDIM", "eta": 7})
