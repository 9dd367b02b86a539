"""Weights to share: half the bytes, the same samples but for rounding."""

import numpy as np
import torch

from sciffusion import evaluate, export, sample
from sciffusion.io.run import Run, load_shared, load_tensors, save_weights


def pictures(run, out, *settings):
    sample.main([f"run={run}", "n=8", f"out={out}", *settings])
    with np.load(out / "samples.npz") as file:
        return file["x"].astype(float)


def test_half_precision_draws_the_same(run, tmp_path):
    export.main([f"run={run}", f"out={tmp_path / 'shared'}"])
    small = (tmp_path / "shared" / "model.safetensors").stat().st_size
    assert small < 0.6 * Run(run).weights.stat().st_size
    apart = pictures(run, tmp_path / "a") - pictures(tmp_path / "shared", tmp_path / "b")
    assert np.abs(apart).mean() < 2  # of 255


def test_a_sampler_to_share_goes_with_the_weights(run, tmp_path):
    for name, settings in {"own": ["sampler.steps=3"], "other": ["sampler=heun"]}.items():
        export.main([f"run={run}", f"out={tmp_path / name}", *settings])
    own, other = (load_shared(tmp_path / name)["sampler"] for name in ("own", "other"))
    assert own == load_shared(run)["sampler"] | {"steps": 3}
    assert other["_target_"].endswith("Heun")


def test_what_cannot_be_shared_is_refused(run, tmp_path, refused):
    assert "give out=" in refused("export", f"run={run}")
    out = f"out={tmp_path / 'out'}"
    assert "export takes no domain=" in refused("export", f"run={run}", out, "domain=image")
    assert "is of domain=image" in refused("export", f"run={run}", out, "domain=molecule")
    assert "no trained run" in refused("export", f"run={tmp_path / 'none'}", f"out={tmp_path}")
    tensors = load_tensors(run)
    name = next(k for k, v in tensors.items() if v.is_floating_point())
    huge = tensors | {name: torch.full_like(tensors[name], 1e6)}
    save_weights(tmp_path, huge, load_shared(run))
    line = refused("export", f"run={tmp_path}", f"out={tmp_path / 'out'}")
    assert name in line
    assert not (tmp_path / "out").exists()


def test_half_precision_networks_draw_the_same(run, tmp_path, refused):
    apart = [
        pictures(run, tmp_path / name, f"precision={name}") for name in ("32-true", "bf16-mixed")
    ]
    assert 0 < np.abs(apart[0] - apart[1]).mean() < 4  # of 255
    assert "bf16-mixed" in refused("sample", f"run={run}", "precision=16")


def test_weights_to_share_are_measured_on_data_that_are_named(run, tmp_path, refused):
    export.main([f"run={run}", f"out={tmp_path / 'shared'}"])
    weights = tmp_path / "shared" / "model.safetensors"
    small = ["n=20", "bits_images=2", "bits_steps=3", "extractor=rotation"]
    assert "give data=" in refused("evaluate", f"run={weights}", *small)
    assert "give out=" in refused("evaluate", f"run={weights}", "data=digits", *small)
    evaluate.main([f"run={weights}", "data=digits", f"out={tmp_path / 'out'}", *small])
    assert (tmp_path / "out" / "report.html").exists()
    assert sorted(p.name for p in weights.parent.iterdir()) == ["config.json", "model.safetensors"]
