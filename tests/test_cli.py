"""The entry points as people meet them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from sciffusion import evaluate, sample, train
from sciffusion.io.config import groups
from sciffusion.io.run import Run


def test_a_run_holds_what_it_says(run):
    run = Run(run)
    parts = (run.config, run.checkpoint, run.metrics, run.weights, run.report)
    assert all(p.stat().st_size > 0 for p in parts)
    assert (run.samples / "grid.png").stat().st_size > 0
    assert not [p for p in run.path.rglob("*") if ".tmp" in p.name]


def test_default_runs_are_numbered(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        train.main([*tiny, "trainer.steps=1"])
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [
        "image-digits-1",
        "image-digits-2",
    ]


def test_samples(run, tmp_path):
    sample.main([f"run={run}", "n=23", f"out={tmp_path}"])
    with np.load(tmp_path / "samples.npz") as file:
        assert sorted(file) == ["label", "x"]
        assert (file["x"].shape, file["x"].dtype) == ((23, 8, 8, 1), np.uint8)
        np.testing.assert_array_equal(file["label"], np.arange(23) % 10)
    with Image.open(tmp_path / "grid.png") as grid:
        grid.load()


def test_sample_i_does_not_depend_on_n_or_batch(run, tmp_path):
    sample.main([f"run={run}", "n=9", "label=3", "seed=4", f"out={tmp_path / 'a'}"])
    sample.main([f"run={run}", "n=5", "label=3", "seed=4", "batch=2", f"out={tmp_path / 'b'}"])
    a, b = (np.load(tmp_path / k / "samples.npz") for k in "ab")
    assert set(a["label"]) == {3}
    assert np.abs(a["x"][:5].astype(int) - b["x"].astype(int)).max() <= 1


@pytest.mark.parametrize(
    "how",
    [
        ["sampler=ddim", "sampler.steps=3"],
        ["sampler.steps=3"],
        ["grid=quadratic"],
        ["guidance.scale=2"],
        ["seed=1"],
    ],
)
def test_settings_of_a_sampler_matter(how, run, tmp_path):
    for name, settings in (("plain", []), ("other", how)):
        sample.main([f"run={run}", "n=4", f"out={tmp_path / name}", *settings])
    a, b = (np.load(tmp_path / k / "samples.npz")["x"] for k in ("plain", "other"))
    assert (a != b).any()


def test_evaluate(run, tmp_path, capsys):
    copy = Run(shutil.copytree(run, tmp_path / "copy"))
    settings = ["n=40", "bits_images=4", "bits_steps=5", "extractor=rotation"]
    evaluate.main([f"run={copy.path}", *settings])
    content = json.loads(
        (copy.path / "metrics.json").read_text(), parse_constant=lambda c: pytest.fail(c)
    )
    page = copy.report.read_text()
    shown = capsys.readouterr().out
    assert content["settings"]["n"] == 40
    names = [row["name"] for row in content["rows"]]
    assert any("distance" in n for n in names)
    assert any("bits per dimension" in n for n in names)
    for row in content["rows"]:
        assert row["n"] >= 1, row
        assert row["floor"] is not None, row
        assert row["low"] <= row["high"], row
        assert row["name"] in page
        assert row["name"] in shown
    # Nothing is fetched: no address but those that name a namespace.
    page = page.replace("http://www.w3.org/", "")
    for word in ('src="http', 'href="http', "url(http", "@import", "//cdn"):
        assert word not in page


def test_fine_tuning_starts_from_the_averaged_weights(run, tiny, tmp_path, capsys):
    start = ["trainer.steps=1", "rate.lr=1e-12", "optimizer.weight_decay=0"]
    for k, source in enumerate((run, run / "model.safetensors")):
        out = Run(tmp_path / str(k))
        train.main([*tiny, *start, f"run={out.path}", f"init={source}"])
        assert "starting from the weights" in capsys.readouterr().out
        from sciffusion.io.run import load_tensors

        first, second = load_tensors(run), load_tensors(out.path)
        assert all((first[k] - v).abs().max() < 1e-6 for k, v in second.items())


def test_python_face(run):
    from sciffusion import Images
    from sciffusion.domains.image import Images as Same

    assert Images is Same
    model = Images.from_pretrained(run, device="cpu")
    few, more = model.sample(n=3, label="7"), model.sample(n=6, label=7)
    assert more.x.shape == (6, 8, 8, 1)
    assert set(more.label) == {7}
    assert np.abs(few.x.astype(int) - more.x[:3].astype(int)).max() <= 1
    assert [i.size for i in few.images] == [(8, 8)] * 3


def test_importing_is_cheap():
    """`import sciffusion` and --help pull in no torch."""
    code = "import sys, sciffusion; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    for module in ("train", "sample", "evaluate", "ema"):
        code = (
            f"import sys\nfrom sciffusion.{module} import cli\n"
            "try:\n    cli(['--help'])\nexcept SystemExit as leave:\n    assert not leave.code\n"
            "assert 'torch' not in sys.modules and 'lightning' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", ["train", "sample", "evaluate"])
def test_help_names_every_choice(name, capsys):
    entry = {"train": train, "sample": sample, "evaluate": evaluate}[name]
    with pytest.raises(SystemExit) as leave:
        entry.cli(["--help"])
    assert leave.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m sciffusion.{name}" in text
    known = groups()
    for group in known if name == "train" else ("sampler", "grid"):
        if name == "train" and group in ("grid", "request", "measures", "prepare"):
            continue  # of the sampler there, and of the other two entry points
        assert f"{group}={'|'.join(known[group])}" in text


def test_one_command_for_all(finish, run, tmp_path):
    out = f"out={tmp_path / 'out'}"
    assert finish("sciffusion.cli", "sample", f"run={run}", "n=2", out)[0] == 0
    code, _, err = finish("sciffusion.cli", "sample", f"run={tmp_path / 'nowhere'}")
    assert code == 2
    assert err.count("\n") == 1
    assert finish("sciffusion.cli", "trian")[0] == 2
    assert finish("sciffusion.cli", "--help")[0] == 0


@pytest.mark.slow
def test_ctrl_c_while_sampling(start, run, tmp_path):
    out = tmp_path / "out"
    process = start("sciffusion.sample", f"run={run}", "n=100000", "sampler=ddpm", f"out={out}")
    deadline = time.monotonic() + 60
    while not out.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(3)  # torch has been imported by now
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.strip().splitlines()[-1] == "sciffusion: stopped"
    assert "Traceback" not in err
    assert not list(out.iterdir())
