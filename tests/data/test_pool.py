import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool

import pytest

from sciffusion.data.pool import cores, shared_out


def squared(x):
    return x * x


def process(_):
    return os.getpid()


def test_results_come_in_order_and_from_other_processes():
    done = []
    assert shared_out(squared, range(7), 2, done.append) == [x * x for x in range(7)]
    assert sum(done) == 7
    assert os.getpid() not in shared_out(process, range(2), 2)
    assert set(shared_out(process, range(2), 1)) == {os.getpid()}
    assert shared_out(squared, []) == []
    assert cores() >= 1


def test_an_error_of_the_work_comes_back():
    with pytest.raises(ZeroDivisionError):
        shared_out(divmod_zero, [1, 2], 2)


def divmod_zero(x):
    return x // 0


def test_a_process_that_dies_does_not_spoil_the_next_call():
    with pytest.raises(BrokenProcessPool):
        shared_out(os._exit, [1, 1], 2)
    assert shared_out(squared, [2, 3], 2) == [4, 9]


def test_a_script_without_a_guard_is_told_and_does_not_hang(tmp_path):
    """Spawned workers run it once more, and would wait for the lock that their parent holds."""
    (tmp_path / "list.smi").write_text("CCO\nCCN\n")
    (tmp_path / "mine.py").write_text(
        "from sciffusion import prepare\n"
        "prepare.main(['domain=molecule', 'input=list.smi', 'out=store', 'workers=2'])\n"
    )
    done = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode != 0
    assert 'if __name__ == "__main__"' in done.stderr
