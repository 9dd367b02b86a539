"""Snapshots of a training: averages of any length beside directly tracked ones, and resuming."""

import re
import shutil

import pytest

from sciffusion import train
from sciffusion.errors import InputError
from sciffusion.io.run import Run, load_checkpoint
from sciffusion.io.snapshots import make_average, snapshots_of, steps_of
from sciffusion.training.callbacks import Checkpoints
from sciffusion.training.snapshots import Spacing

DIRECT = [0.03, 0.07, 0.15, 0.2]
"""Lengths that are tracked to compare with; snapshots are then of these, not of the usual two."""


def snap(*more):
    return ["trainer.snapshots.number=12", "trainer.steps=24", "rate.warmup=4", *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny):
    run = Run(tmp_path_factory.mktemp("whole") / "run")
    train.main([*tiny, *snap(), f"run={run.path}"])
    return run


def directly(tiny, path):
    """Averages of DIRECT lengths at the end of the same training."""
    train.main([*tiny, *snap(f"trainer.snapshots.profiles={DIRECT}"), f"run={path}"])
    tracked = load_checkpoint(Run(path).checkpoint)["profiles"]["averages"]
    return {average["length"]: average["shadow"] for average in tracked}


def test_a_training_gives_any_length_afterwards(whole, tiny, tmp_path):
    snapshots = snapshots_of(whole)
    assert [s.step for s in snapshots] == list(range(2, 25, 2))
    for length, direct in directly(tiny, tmp_path / "direct").items():
        made = make_average(snapshots, length).tensors
        assert made.keys() == direct.keys()
        apart = sum(float(((made[k] - v) ** 2).sum()) for k, v in direct.items()) ** 0.5
        size = sum(float((v**2).sum()) for v in direct.values()) ** 0.5
        assert apart / size <= 1e-3, length


def test_snapshots_leave_the_training_as_it_was(whole, tiny, tmp_path):
    plain = Run(tmp_path / "run")
    train.main([*tiny, *snap("trainer.snapshots.number=0"), f"run={plain.path}"])
    assert plain.weights.read_bytes() == whole.weights.read_bytes()
    assert not plain.snapshots.exists()
    assert "profiles" not in load_checkpoint(plain.checkpoint)


def same_snapshots(a, b):
    first, second = (
        {step: path.read_bytes() for step, path in steps_of(run.snapshots).items()}
        for run in (a, b)
    )
    assert first.keys() == second.keys()
    assert first == second


def test_a_resumed_training_has_the_same_snapshots(whole, tiny, tmp_path, monkeypatch):
    """Stopped after a snapshot that its last checkpoint knows nothing of."""
    run, save = Run(tmp_path / "run"), Checkpoints.save

    def until(self, trainer, module):  # as a kill at step 15 leaves it
        if module.done == 11:
            save(self, trainer, module)
        if module.done == 15:
            raise RuntimeError("killed")

    monkeypatch.setattr(Checkpoints, "save", until)
    with pytest.raises(RuntimeError, match="killed"):
        train.main([*tiny, *snap("trainer.checkpoint_seconds=0"), f"run={run.path}"])
    monkeypatch.undo()
    assert load_checkpoint(run.checkpoint)["step"] == 11
    assert max(steps_of(run.snapshots)) == 14
    steps_of(run.snapshots)[14].write_bytes(b"half a file")
    train.main([f"run={run.path}", "trainer.checkpoint_seconds=30"])
    same_snapshots(run, whole)


@pytest.mark.slow
def test_a_longer_training_keeps_its_disk_bounded(tiny, tmp_path):
    """And what it keeps lies evenly: with a constant rate 12 steps and then 14 more are 26."""
    long, short = Run(tmp_path / "long"), Run(tmp_path / "short")
    how = ["rate=constant", "trainer.snapshots.number=4"]
    train.main([*tiny, *how, "trainer.snapshots.every=3", "trainer.steps=26", f"run={long.path}"])
    train.main([*tiny, *how, "trainer.steps=12", f"run={short.path}"])
    assert list(steps_of(short.snapshots)) == [3, 6, 9, 12]
    train.main([f"run={short.path}", "trainer.steps=20"])
    train.main([*tiny, *how, "trainer.steps=26", f"run={short.path}"])  # the command that began it
    assert list(steps_of(long.snapshots)) == [6, 12, 18, 24, 26]
    same_snapshots(long, short)


@pytest.mark.parametrize(("number", "every"), [(2, 1), (3, 5), (8, 4), (7, 3)])
def test_files_are_bounded_and_even(number, every):
    spacing = Spacing(number, every, (0.1,), False)
    for step in range(1, 400):
        files = [k for k in range(1, step + 1) if k % spacing.at(step) == 0]
        assert len(files) <= number
        assert step < every * number or len(files) >= number // 2
        assert all(spacing.due(k) for k in files)  # what is kept now was taken then


def test_averages_cannot_begin_on_the_way(tiny, tmp_path):
    run = f"run={tmp_path / 'run'}"
    train.main([*tiny, "trainer.steps=4", run])
    with pytest.raises(InputError, match="cannot begin or change on the way"):
        train.main([run, "trainer.steps=8", "trainer.snapshots.number=2"])


def test_profiles_cannot_change_on_the_way(tiny, tmp_path):
    run = f"run={tmp_path / 'run'}"
    train.main([*tiny, "trainer.steps=4", "trainer.snapshots.number=2", run])
    with pytest.raises(InputError, match="cannot begin or change on the way"):
        train.main([run, "trainer.steps=8", "trainer.snapshots.profiles=[0.05,0.2]"])


def test_it_says_what_the_disk_must_hold(tiny, tmp_path, capsys):
    run = Run(tmp_path / "run")
    half = "trainer.snapshots.precision=half"
    train.main([*tiny, "trainer.steps=4", "trainer.snapshots.number=4", half, f"run={run.path}"])
    told = re.search(r"at most 5 files, ([\d.]+) MB", capsys.readouterr().out)
    used = sum(path.stat().st_size for path in steps_of(run.snapshots).values())
    assert used < 1.5 * float(told[1]) * 1e6
    assert float(told[1]) * 1e6 < 2 * used
    assert {s.dtype for s in snapshots_of(run)} == {"float16"}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("number=1", "at least 2"),
        ("number=-3", "at least 2"),
        ("every=0", "at least 1"),
        ("every=2.5", "whole number"),
        ("precision=bf16", "full or half"),
        ("profiles=[0.05,0.05]", "different lengths"),
        ("profiles=[]", "different lengths"),
        ("profiles=[0.05,0.5]", "0.5 is no length"),
        ("profiles=[a,0.1]", "a is no length"),
    ],
)
def test_refused(setting, says, refused, tiny, tmp_path):
    some = [] if setting.startswith("number") else ["trainer.snapshots.number=4"]
    assert says in refused("train", *tiny, *some, f"trainer.snapshots.{setting}")
    assert not list(tmp_path.iterdir())


def test_two_runs_of_two_seeds_are_told_apart(tiny, tmp_path):
    one, other = Run(tmp_path / "one"), Run(tmp_path / "other")
    for seed, run in enumerate((one, other)):
        few = ["trainer.steps=2", "trainer.snapshots.number=2"]
        train.main([*tiny, *few, f"seed={seed}", f"run={run.path}"])
    shutil.rmtree(other.snapshots)
    shutil.copytree(one.snapshots, other.snapshots)
    with pytest.raises(InputError, match=r"of another run \(2 of 2 are\)"):
        snapshots_of(other)
