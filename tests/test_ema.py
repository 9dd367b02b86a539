"""`ema` as people meet it: one average, a sweep that is cut short, and bad input."""

import json
import shutil

import numpy as np
import pytest
import torch

from sciffusion import ema, sample, train
from sciffusion.domains.report import write_report
from sciffusion.io.run import Run, load_checkpoint, load_tensors
from sciffusion.io.snapshots import steps_of

SMALL = ["n=40", "extractor=rotation", "points=3", "seeds=1", "report_seeds=2,3"]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory, tiny):
    """A run with snapshots; copy it before writing to it."""
    run = Run(tmp_path_factory.mktemp("tracked") / "run")
    train.main([*tiny, "rate.warmup=2", "trainer.snapshots.number=20", f"run={run.path}"])
    return run


@pytest.fixture
def copy(tracked, tmp_path):
    return Run(shutil.copytree(tracked.path, tmp_path / "copy"))


def test_one_average_is_written_and_draws(tracked, tmp_path):
    """The tracked length comes back as it was tracked."""
    out = tmp_path / "best" / "ema.safetensors"
    ema.main([f"run={tracked.path}", "length=0.1", f"out={out}"])
    kept = load_checkpoint(tracked.checkpoint)["profiles"]["averages"][1]
    assert kept["length"] == 0.1
    for name, value in load_tensors(out).items():
        torch.testing.assert_close(value, kept["shadow"][name], rtol=1e-6, atol=1e-7)
    sample.main([f"run={out}", "n=4", f"out={tmp_path / 'samples'}"])
    ema.main([f"run={tracked.path}", "length=0.1", "step=10", f"out={tmp_path / 'early'}"])
    early, late = load_tensors(tmp_path / "early"), load_tensors(out)
    assert any(not torch.equal(early[k], late[k]) for k in late)


def test_a_sweep_goes_on_where_it_was_cut_short(copy, tmp_path, monkeypatch, capsys):
    command = [f"run={copy.path}", "lengths=0.04:0.25", f"out={tmp_path / 'best'}", *SMALL]
    from sciffusion.domains.image.domain import ImageDomain

    evaluate, calls = ImageDomain.evaluate, []

    def counted(self, *arguments):
        calls.append(arguments[2]["seed"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(self, *arguments)

    monkeypatch.setattr(ImageDomain, "evaluate", counted)
    with pytest.raises(KeyboardInterrupt):
        ema.main(command)
    assert not (copy.path / "ema" / "ema.json").exists()
    ema.main(command)
    assert len(calls) == 3 + 2 + 4  # of four by seed 1 two were done; then two by two seeds
    assert calls[3:] == [1, 1, 2, 3, 2, 3]
    found = json.loads((copy.path / "ema" / "ema.json").read_text())
    assert found["metric"] == "Frechet distance"
    assert [c["length"] for c in found["curve"]] == [0.04, 0.1, 0.25]
    assert found["length"] == min(found["curve"], key=lambda c: c["mean"])["length"]
    assert found["report_seeds"] == [2, 3]
    assert len(found["result"]) == len(found["own_result"]) == 2
    assert found["rows"][2]["value"] == pytest.approx(
        np.mean(found["result"]) - np.mean(found["own_result"])
    )
    page = (copy.path / "ema" / "report.html").read_text()
    assert found["verdict"].split(".")[0] in page
    assert (copy.path / "ema" / "curve.png").stat().st_size > 1000
    write_report(copy)
    assert "Length of the average" in copy.report.read_text()
    shown = capsys.readouterr().out
    assert f"length {found['length']:g} at step 20" in shown
    assert load_tensors(tmp_path / "best").keys() == load_tensors(copy.path).keys()
    other = ["lengths=0.1", "metric=precision", "report_seeds=2"]  # another question
    ema.main([command[0], *SMALL[:2], *other, "seeds=1"])
    assert calls[9:] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "run=DIR"),
        (["run=nowhere"], "nowhere"),
        (["run=RUN", "length=0.1"], "out=FILE.safetensors"),
        (["run=RUN", "length=long", "out=x"], "give numbers"),
        (["run=RUN", "length=0.3", "out=x"], "0.2887"),
        (["run=RUN", "length=0.1", "step=21", "out=x"], "step=21"),
        (["run=RUN", "length=0.1", "step=two", "out=x"], "step=two"),
        (["run=RUN", "length=0.1,0.2", "out=x"], "give one"),
        (["run=RUN", "length=0.1", "out=x", "n=10"], "leave out n=10"),
        (["run=RUN", "length=0.1", "out=RUN"], "replace the run's own"),
        (["run=RUN", "length=0.1", "out=RUN/model.safetensors"], "replace the run's own"),
        (["run=RUN", "length=0.1", "out=OTHER/x.safetensors"], "another network's config.json"),
        (["run=RUN", "lengths=0.2:0.1"], "lengths=0.2:0.1"),
        (["run=RUN", "lengths=0.1:"], "lengths="),
        (["run=RUN", "lengths=0.002:0.1"], "too few for length=0.002"),
        (["run=RUN", "lengths=0.1:0.5"], "0.2887"),
        (["run=RUN", "points=1"], "points=1"),
        (["run=RUN", "points=many"], "whole number"),
        (["run=RUN", "seeds=1.5"], "whole numbers"),
        (["run=RUN", "seeds=3"], "seed 3 is in seeds= and in report_seeds="),
        (["run=RUN", "seed=3"], "give seeds="),
        (["run=RUN", "sampler.stepz=3"], "did you mean sampler.steps?"),
        (["run=RUN", "metric=Frechet", "points=2", "n=20"], "did you mean Frechet distance?"),
    ],
)
def test_refused(arguments, says, refused, copy, tmp_path):
    other = tmp_path / "OTHER"
    other.mkdir()
    (other / "config.json").write_text("{}")
    words = [a.replace("RUN", str(copy.path)).replace("OTHER", str(other)) for a in arguments]
    small = [] if any(a.startswith("length=") for a in words) or len(words) < 2 else SMALL[1:2]
    assert says in refused("ema", *words, *small)
    assert not (tmp_path / "x").exists()


def test_runs_without_snapshots_and_broken_ones(refused, run, copy):
    assert "trainer.snapshots.number" in refused("ema", f"run={run}")
    path = steps_of(copy.snapshots)[7]
    path.write_bytes(path.read_bytes()[:200])
    assert str(path) in refused("ema", f"run={copy.path}", "length=0.1", "out=x")
