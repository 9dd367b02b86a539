"""Averages made of snapshots on disk, beside averages tracked directly; and files that lie."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sciffusion.core.ema import PowerEMA
from sciffusion.errors import InputError
from sciffusion.io.run import Run
from sciffusion.io.snapshots import make_average, save_snapshot, snapshots_of, steps_of

STEPS, DIRECT = 2048, (0.03, 0.07, 0.15, 0.20)


def walk(folder, number, half=False, steps=STEPS, seed=0, name="walk"):
    """Averages of DIRECT lengths, tracked on a random walk whose snapshots lie in the folder."""
    g = torch.Generator().manual_seed(seed)
    module = nn.Linear(32, 16, bias=False)
    nn.init.zeros_(module.weight)
    tracked = [PowerEMA(module, v) for v in (0.05, 0.1)]
    direct = [PowerEMA(module, v) for v in DIRECT]
    for step in range(1, steps + 1):
        with torch.no_grad():
            module.weight.add_(torch.randn(module.weight.shape, generator=g))
        for average in (*tracked, *direct):
            average.update(module)
        if step % (steps // number) == 0:
            save_snapshot(folder, tracked, name, half)
    return {average.length: average.shadow["weight"] for average in direct}


def error(made, direct):
    return float((made.tensors["weight"] - direct).norm() / direct.norm())


@pytest.fixture(scope="module")
def fine(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("fine"))
    return run, walk(run.snapshots, 128)


def test_128_snapshots_give_any_length(fine):
    run, direct = fine
    snapshots = snapshots_of(run)
    assert len(snapshots) == 128
    for length, average in direct.items():
        made = make_average(snapshots, length)
        assert error(made, average) <= 1e-4, length
        assert made.step == STEPS


def test_16_snapshots_give_longer_ones_and_say_how_well(fine, tmp_path):
    run, direct = fine
    for step, path in steps_of(run.snapshots).items():
        if step % 128 == 0:
            (tmp_path / "snapshots").mkdir(exist_ok=True)
            shutil.copy(path, tmp_path / "snapshots")
    snapshots = snapshots_of(Run(tmp_path))
    assert len(snapshots) == 16
    for length, average in direct.items():
        made = make_average(snapshots, length)
        found = error(made, average)
        assert found <= (5e-3 if length >= 0.07 else 5e-2), length
        assert made.error / 3 < found < 3 * made.error  # the error told is the error made


def test_an_earlier_step_is_the_average_of_then(fine, tmp_path):
    run, _ = fine
    direct = walk(tmp_path / "snapshots", 128, steps=STEPS // 2)  # the same walk, half as long
    for length, average in direct.items():
        assert error(make_average(snapshots_of(run), length, STEPS // 2), average) <= 1e-4


def test_half_precision_halves_the_disk(tmp_path):
    run = Run(tmp_path)
    direct = walk(run.snapshots, 64, half=True, steps=512)
    assert steps_of(run.snapshots)[512].stat().st_size < 2 * 2 * 512 * 2
    for length, average in direct.items():
        made = make_average(snapshots_of(run), length)
        assert error(made, average) <= 2e-3
        assert made.tensors["weight"].dtype == torch.float32


def test_what_is_not_averaged_is_copied_from_its_step(tmp_path):
    run, module = Run(tmp_path), nn.BatchNorm1d(3)
    tracked = [PowerEMA(module, v) for v in (0.05, 0.1)]
    seen = {}
    for step in range(1, 33):
        module(torch.randn(8, 3) + step)
        for average in tracked:
            average.update(module)
        save_snapshot(run.snapshots, tracked, "x")
        seen[step] = module.running_mean.clone()
    for step in (32, 20):
        made = make_average(snapshots_of(run), 0.1, step).tensors
        assert made.keys() == module.state_dict().keys()
        assert torch.equal(made["running_mean"], seen[step])
        assert int(made["num_batches_tracked"]) == step


@pytest.fixture
def few(tmp_path):
    run = Run(tmp_path / "run")
    walk(run.snapshots, 8, steps=64)
    return run


def refused(run, length=0.1, step=None):
    with pytest.raises(InputError) as error:
        make_average(snapshots_of(run), length, step)
    return str(error.value)


def test_lengths_and_steps_that_cannot_be_had(few):
    for length in (0.0, -1.0, 0.3, float("nan")):
        assert "0.2887" in refused(few, length)
    for step in (0, -3, 65):
        assert "from step 8 to 64" in refused(few, step=step)
    said = refused(few, 0.01)
    assert "8 snapshots are too few for length=0.01" in said
    least = float(said.partition("at least ")[2].partition(",")[0])
    assert make_average(snapshots_of(few), least).error <= 0.01
    most = float(refused(few, 0.2886).partition("at most ")[2].partition(",")[0])
    assert make_average(snapshots_of(few), most).error <= 0.01
    assert "too few" in refused(few, 0.1, step=3)  # before the first one


def test_no_snapshots(tmp_path):
    assert "trainer.snapshots.number" in refused(Run(tmp_path))


def test_broken_files(few):
    path = steps_of(few.snapshots)[32]
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:5], b""):
        path.write_bytes(part)
        assert f"{path} is not a readable snapshot" in refused(few)
    save_file({"weight": torch.zeros(3)}, path)
    assert f"{path} is no snapshot" in refused(few)
    path.write_bytes(steps_of(few.snapshots)[40].read_bytes())
    assert f"{path} holds step 40" in refused(few)


def test_files_of_another_run(few, tmp_path):
    other = Run(tmp_path / "other")
    walk(other.snapshots, 8, steps=64, seed=1, name="another")
    path = steps_of(few.snapshots)[16]
    shutil.copy(steps_of(other.snapshots)[16], path)
    assert f"{path} is of another run (1 of 8 are)" in refused(few)


def changed(path, change):
    """The file with other tensors under the same header."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = file.metadata()
    save_file(change(load_file(path)), path, about)


def test_files_of_another_network(few):
    path = steps_of(few.snapshots)[64]
    whole = path.read_bytes()
    changed(path, lambda t: {k: v[:, :3].clone() for k, v in t.items()})
    assert "another shape" in refused(few)
    changed(path, lambda t: {f"{k}x": v for k, v in t.items()})
    assert "of another network" in refused(few)
    path.write_bytes(whole)
    changed(path, lambda t: {k: v / 0 for k, v in t.items()})
    assert "not finite" in refused(few)
    path.write_bytes(whole)
    changed(path, lambda t: {"0/weight": t["0/weight"]})
    assert "not a readable snapshot" in refused(few)
