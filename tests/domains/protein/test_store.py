"""Stores: what goes in comes out, with neither Biopython nor PyTorch."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from sciffusion.domains.protein.backbone import Backbone
from sciffusion.domains.protein.store import read_store, write_clusters, write_shard
from sciffusion.errors import InputError


@pytest.fixture
def backbones(pdb):
    def named(k):
        one = Backbone.of(pdb.coords(9 + k), pdb.sequence(9 + k, k), (4, 5 + k), f"name {k}")
        codes = np.array(["", "A", *[""] * (7 + k)])
        return replace(one, number=one.number - 7, insertion=codes, cluster=k - 1, source=f"s {k}")

    return [named(k) for k in range(3)]


def test_what_goes_in_comes_out(backbones, tmp_path):
    write_shard(tmp_path / "part-00000.arrow", backbones[:2])
    write_shard(tmp_path / "part-00001.arrow", backbones[2:])
    found = list(read_store(tmp_path))
    for one, other in zip(backbones, found, strict=True):
        for what in ("sequence", "name", "cluster", "source"):
            assert getattr(one, what) == getattr(other, what)
        for what in ("chain", "number", "insertion"):
            np.testing.assert_array_equal(getattr(one, what), getattr(other, what))
        np.testing.assert_array_equal(one.coords.astype(np.float32), other.coords)
    write_clusters(tmp_path, [7, 8, 9])
    again = list(read_store(tmp_path))
    assert [b.cluster for b in again] == [7, 8, 9]
    assert all((a.coords == b.coords).all() for a, b in zip(found, again, strict=True))


def test_reading_needs_neither_biopython_nor_torch(backbones, tmp_path):
    write_shard(tmp_path / "part-00000.arrow", backbones)
    code = (
        "import sys; from sciffusion.domains.protein.store import read_store; "
        f"assert len(list(read_store({str(tmp_path)!r}))) == 3; "
        "print({'Bio', 'torch', 'rdkit'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_is_no_store_is_told(backbones, tmp_path):
    with pytest.raises(InputError, match="no store of proteins"):
        list(read_store(tmp_path))
    (tmp_path / "part-00000.arrow").write_bytes(b"garbled")
    with pytest.raises(InputError, match=r"part-00000\.arrow"):
        list(read_store(tmp_path))
