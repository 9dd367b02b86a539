"""A tiny run, and how to start the entry points: in this process or in one of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sciffusion import distill, ema, evaluate, export, sample, train

TINY = (
    "trainer.steps=20",
    "trainer.batch_size=16",
    "trainer.log_every=1",
    "trainer.picture_every=0",
    "trainer.accelerator=cpu",
    "model.channels=8",
    "model.head_channels=8",
    "sampler.steps=2",
)
ENTRY = {
    "train": train.cli, "distill": distill.cli, "ema": ema.cli, "sample": sample.cli,
    "evaluate": evaluate.cli, "export": export.cli,
}  # fmt: skip
# A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny():
    """Settings of a training of a second."""
    return list(TINY)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A trained run; copy it before writing to it."""
    path = tmp_path_factory.mktemp("runs") / "run"
    train.main([*TINY, f"run={path}"])
    return path


@pytest.fixture
def start(tmp_path):
    """Start `python -m MODULE ARGUMENTS` in an empty folder; returns the process."""
    processes = []
    # Not from this folder's own idea of the world: a torchrun or DDP around pytest stays out.
    keep = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}

    def begin(*command, **options):
        folder = options.pop("cwd", tmp_path)
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            cwd=folder,
            env=keep | options.pop("env", {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def finish(start):
    """The same, run to its end: (exit code, stdout, stderr)."""

    def complete(*command, **options):
        process = start(*command, **options)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    return complete


@pytest.fixture
def refused(capsys, monkeypatch, tmp_path):
    """Run an entry point that must refuse with exit code 2 and one line; returns the line."""
    monkeypatch.chdir(tmp_path)

    def call(name, *arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as leave:
            ENTRY[name]([str(a) for a in arguments])
        err = capsys.readouterr().err
        assert leave.value.code == 2, err
        assert err.startswith("sciffusion: "), err
        assert err.count("\n") == 1, err
        assert not list(Path(tmp_path).rglob("*.tmp*"))
        return err

    return call
