"""Pictures edited on the command line: what is kept is kept; what cannot be is told in a line."""

import numpy as np
import pytest
import torch
from PIL import Image

from sciffusion import sample
from sciffusion.core.samplers import DDIM
from sciffusion.domains.base import load_model
from sciffusion.domains.sampling import draw_asked


@pytest.fixture
def files(tmp_path):
    """A picture, a mask whose right half is drawn anew, a small picture, others of other sizes."""
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 4:] = 255
    made = {
        "picture": picture,
        "mask": mask,
        "small": picture[::2, ::2],
        "white": np.full((8, 8), 255, np.uint8),
        "large": np.zeros((28, 28), np.uint8),
        "colour": np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8),
    }
    for name, x in made.items():
        Image.fromarray(x).save(tmp_path / f"{name}.png")
    (tmp_path / "text.png").write_text("no picture")
    return {name: tmp_path / f"{name}.png" for name in (*made, "text")}


def draw(run, out, *settings):
    sample.main([f"run={run}", "n=4", f"out={out}", "sampler.steps=6", *map(str, settings)])
    with np.load(out / "samples.npz") as file:
        return file["x"][..., 0].astype(int)


@pytest.mark.parametrize("solver", ["moments", "pigdm", "replace"])
def test_what_is_not_masked_is_kept(solver, run, files, tmp_path):
    x = draw(
        run, tmp_path / "a", f"from={files['picture']}", f"mask={files['mask']}",
        f"solver={solver}", *(["resample=2", "jump=3"] if solver == "replace" else []),
    )  # fmt: skip
    kept = np.asarray(Image.open(files["picture"])).astype(int)[:, :4]
    # An untrained network's covariance is no covariance: its solver comes near, no nearer.
    assert np.abs(x[:, :, :4] - kept).mean() < (1 if solver == "replace" else 40)
    assert (x[0, :, 4:] != x[1, :, 4:]).any()


def test_particles_of_a_group_are_of_one_class(run, files, tmp_path):
    draw(
        run, tmp_path / "a", f"from={files['picture']}", f"mask={files['mask']}", "std=0.3",
        "sampler=twisted", "sampler.particles=2",
    )  # fmt: skip
    with np.load(tmp_path / "a" / "samples.npz") as file:
        assert file["label"].tolist() == [0, 0, 1, 1]


class Watched(DDIM):
    """Remembers the largest number of each step's thought."""

    def __init__(self, steps):
        super().__init__(steps)
        self.largest = []

    def predict(self, *arguments):
        thought = super().predict(*arguments)
        self.largest.append(float(thought.x0.abs().max()))
        return thought


def test_what_is_clipped_is_what_is_guided(run, tmp_path):
    """Guidance takes a thought out of the bounds that its two halves keep."""
    domain, denoiser, _ = load_model(run)
    for parameter in denoiser.parameters():
        parameter.data += 0.1
    asked = {"n": 4, "seed": 0, "batch": 4, "guidance": {"scale": 9.0, "low": 0.0, "high": 1e9}}
    found = {}
    for clip in (None, "clip"):
        sampler = Watched(4)
        draw_asked(domain, denoiser, sampler, asked | {"clip": clip}, torch.device("cpu"), {})
        found[clip] = max(sampler.largest)
    assert found[None] > 1.5
    assert found["clip"] <= 1


def test_every_edit_runs(run, files, tmp_path):
    for k, how in enumerate([
        [f"from={files['small']}", "upscale=2", "solver=pigdm"],
        [f"from={files['picture']}", "blur=1.0", "solver=dps"],
        [f"from={files['picture']}", "noise=0.2"],
        [f"from={files['picture']}", "noise=1", f"mask={files['mask']}", "solver=replace"],
        [
            f"from={files['picture']}", f"mask={files['mask']}", "sampler=twisted", "std=0.3",
            "sampler.particles=2", "solver=pigdm",
        ],
    ]):  # fmt: skip
        assert draw(run, tmp_path / str(k), *how).shape == (4, 8, 8)


def test_little_noise_keeps_the_picture(run, files, tmp_path):
    """The first kept step is already below the noise asked for, so nothing much can change."""
    x = draw(run, tmp_path / "a", f"from={files['picture']}", "noise=0.01", "sampler.steps=40")
    kept = np.asarray(Image.open(files["picture"])).astype(int)
    assert np.abs(x - kept).mean() < 20


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["from={large}", "mask={mask}"], "28 x 28 pixels; it must be 8 x 8"),
        (["from={picture}", "mask={large}"], "mask="),
        (["from={picture}", "mask={white}"], "all white"),
        (["from={picture}"], "say what to do"),
        (["mask={mask}"], "give from=FILE"),
        (["from={picture}", "upscale=2"], "8 x 8 pixels; it must be 4 x 4"),
        (["from={picture}", "upscale=3"], "upscale=3"),
        (["from={picture}", "mask={mask}", "blur=1"], "do not go together"),
        (["from={picture}", "colourise=true"], "draws grey"),
        (["from={colour}", "noise=1"], "in colour"),
        (["from={picture}", "noise=0"], "more than 0"),
        (["from={picture}", "noise=1e9"], "at most"),
        (["from={picture}", "blur=-1"], "blur"),
        (["from={picture}", "mask={mask}", "solver=magic"], "not known"),
        (["from={picture}", "blur=1", "solver=replace"], "for a mask"),
        (["from={picture}", "mask={mask}", "resample=3"], "solver=replace"),
        (["from={picture}", "mask={mask}", "sampler=twisted", "n=5"], "multiple"),
        (["from={picture}", "mask={mask}", "sampler=twisted", "std=0", "n=64"], "std > 0"),
        (["from={text}", "noise=1"], "cannot be read"),
        (["from=nowhere.png", "noise=1"], "check the path"),
        (["guidance.by=nowhere"], "nowhere"),
    ],
)
def test_wrong_requests(settings, says, run, files, refused):
    assert says in refused("sample", f"run={run}", *(s.format(**files) for s in settings))


def test_autoguidance_on_the_command_line(run, files, tmp_path):
    """A run guided by itself is itself."""
    plain = draw(run, tmp_path / "plain")
    same = draw(run, tmp_path / "same", f"guidance.by={run}", "guidance.by_scale=3")
    assert np.abs(plain - same).max() <= 1
