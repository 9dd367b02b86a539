"""A training that was killed and went on is the training that was not killed, bit for bit."""

import os
import random
import signal
import time

import pytest
from support.checkpoints import assert_same

from sciffusion import train
from sciffusion.io.run import Run, load_checkpoint

SETTINGS = ["trainer.steps=80", "trainer.checkpoint_seconds=0.1", "model.dropout=0.2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny):
    """The training that nothing happened to, in this process."""
    run = Run(tmp_path_factory.mktemp("whole") / "run")
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    train.main([*tiny, *SETTINGS, f"run={run.path}"])
    assert handlers == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    return run


def wait_for(process, run, rows, saved):
    """Until the log has so many rows, and a checkpoint is there if `saved`."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        ready = run.checkpoint.exists() if saved else run.metrics.exists()
        if ready and run.metrics.read_text().count("\n") > rows:
            return
        time.sleep(0.002)
    raise AssertionError(f"too late or too early: {process.communicate()}")


def rows_of(run):
    return [line.split(",")[0] for line in run.metrics.read_text().splitlines()[1:]]


@pytest.mark.slow
def test_killed_at_a_random_step(whole, start, tiny, tmp_path):
    run = Run(tmp_path / "run")
    process = start("sciffusion.train", *tiny, *SETTINGS, f"run={run.path}")
    wait_for(process, run, random.randint(5, 40), saved=True)
    process.kill()
    process.communicate()
    assert len(rows_of(run)) < 80
    with run.metrics.open("a") as log:
        log.write("79,0.12")  # what a kill in the middle of a row leaves
    train.main([f"run={run.path}"])
    assert rows_of(run) == [str(k) for k in range(1, 81)]
    assert_same(run, whole)


@pytest.mark.slow
def test_asked_to_stop(whole, start, tiny, tmp_path):
    run = Run(tmp_path / "run")
    seldom = "trainer.checkpoint_seconds=3600"  # what is on disk is what the signal saved
    process = start("sciffusion.train", *tiny, *SETTINGS, seldom, f"run={run.path}")
    wait_for(process, run, 10, saved=False)
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    step = load_checkpoint(run.checkpoint)["step"]
    assert f"stopped and saved at step {step}" in out
    assert rows_of(run)[-1] == str(step)
    assert step < 80
    assert not run.report.exists()
    train.main([f"run={run.path}"])
    assert_same(run, whole)


def test_a_longer_training_extends_the_run(whole, tiny, tmp_path):
    """With a constant rate, 80 steps are 30 and then 50 more."""
    long, short = Run(tmp_path / "long"), Run(tmp_path / "short")
    rate = ["rate=constant"]
    train.main([*tiny, *SETTINGS, *rate, f"run={long.path}"])
    train.main([*tiny, *SETTINGS, *rate, f"run={short.path}", "trainer.steps=30"])
    assert load_checkpoint(short.checkpoint)["step"] == 30
    train.main([f"run={short.path}", "trainer.steps=80"])
    assert_same(short, long)


def test_nothing_left_to_train_leaves_the_run_alone(whole, capsys):
    before = whole.checkpoint.read_bytes(), whole.metrics.read_bytes()
    train.main([f"run={whole.path}"])
    assert "nothing left" in capsys.readouterr().out
    assert before == (whole.checkpoint.read_bytes(), whole.metrics.read_bytes())


def test_a_run_that_never_saved_keeps_its_configuration(tiny, tmp_path):
    """Killed before the first checkpoint, `run=DIR` alone begins it again as it was meant."""
    run = Run(tmp_path / "run")
    train.main([*tiny, "trainer.steps=3", f"run={run.path}"])
    log = run.metrics.read_bytes()
    run.checkpoint.unlink()
    train.main([f"run={run.path}"])
    assert run.metrics.read_bytes() == log


def test_the_command_that_began_a_run_resumes_it(tiny, tmp_path):
    run = Run(tmp_path / "run")
    command = [*tiny, "data=digits", "parameterization=v", f"run={run.path}"]
    train.main([*command, "trainer.steps=3"])
    train.main([*command, "trainer.steps=5"])
    assert rows_of(run) == ["1", "2", "3", "4", "5"]
