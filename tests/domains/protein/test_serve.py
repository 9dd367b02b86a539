"""`sample` of backbones from the command to its files, whatever happens on the way."""

import os
import re
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from Bio.PDB import MMCIFParser, PDBParser
from support.backbones import made
from support.protein_run import STEPS, make_run

from sciffusion import sample
from sciffusion.domains.protein.designs import Designs
from sciffusion.domains.protein.partial import rmsd
from sciffusion.domains.protein.structure import from_structure
from sciffusion.domains.protein.writers import write_backbone
from sciffusion.errors import InputError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "protein")


@pytest.fixture
def call(run, tmp_path, monkeypatch):
    """`sample` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *settings: sample.main([f"run={run}", "device=cpu", *settings])


def parsed(path):
    parser = (MMCIFParser if ".cif" in path.name else PDBParser)(QUIET=True)
    return parser.get_structure("x", str(path))


def designs(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("design_*"))}


def test_a_folder(call, tmp_path, capsys):
    call("length=9-14", "n=4", "out=d/", "ss=null", "seed=5")
    said = capsys.readouterr()
    assert said.out.startswith("sciffusion: wrote d/: 4 backbones of ")
    assert said.err == ""
    found = designs(tmp_path / "d")
    assert list(found) == [f"design_{k:05d}.pdb" for k in range(4)]
    for path in (tmp_path / "d").glob("*.pdb"):
        (model,) = parsed(path)
        (chain,) = model
        assert 9 <= len(list(chain)) <= 14
        assert {a.bfactor for a in chain.get_atoms()} == {0.0}
        text = path.read_text()
        for told in (f"seed 5, {path.stem}", "length: 9-14", "SDEDPMSolverPP(steps=3"):
            assert told in text


@pytest.mark.parametrize("format", ["cif", "pdb.gz", "cif.gz"])
def test_formats(format, call, tmp_path):
    call("length=6", "n=2", "out=d", f"format={format}")
    assert list(designs(tmp_path / "d")) == [f"design_{k:05d}.{format}" for k in range(2)]


def test_the_same_command_keeps_what_is_there(call, tmp_path, capsys):
    ask = ("length=8-12", "out=d/")
    call(*ask, "n=6")
    whole = designs(tmp_path / "d")
    (tmp_path / "d/notes.txt").write_text("mine")
    first = tmp_path / "d/design_00000.pdb"
    os.utime(first, ns=(1, 1))
    (tmp_path / "d/design_00003.pdb").unlink()
    (tmp_path / "d/.design_00003.01ab.tmp.pdb").write_text("what a kill leaves")
    capsys.readouterr()
    call(*ask, "n=6")
    assert "going on after 5" in capsys.readouterr().err
    assert first.stat().st_mtime_ns == 1
    assert_like(designs(tmp_path / "d"), whole)
    assert not list(tmp_path.rglob("*.tmp.*"))
    call(*ask, "n=8")
    more = designs(tmp_path / "d")
    assert len(more) == 8
    assert_like({k: more[k] for k in whole}, whole)
    call(*ask, "n=8", "batch=1", "out=e/")
    assert_like(designs(tmp_path / "e"), more)


def assert_like(found, whole):
    """The same but for the rounding of other batches."""
    assert found.keys() == whole.keys()
    for name in whole:
        a, b = (_points(d[name]) for d in (found, whole))
        np.testing.assert_allclose(a, b, atol=2e-3)


def _points(data):
    lines = [x for x in data.decode().splitlines() if x.startswith("ATOM")]
    return [[float(x[k : k + 8]) for k in (30, 38, 46)] for x in lines]


def test_another_request_in_the_same_folder(call, tmp_path):
    call("length=8", "n=3", "out=d/")
    before = designs(tmp_path / "d")
    for other in (("length=9",), ("length=8", "seed=1"), ("length=8", "sampler.steps=2")):
        with pytest.raises(InputError, match="d holds another request"):
            call("n=3", "out=d/", *other)
        assert designs(tmp_path / "d") == before
    (tmp_path / "d/design_00000_refined.pdb").write_text("mine")
    call("length=9", "n=2", "out=d/", "resume=false")
    found = designs(tmp_path / "d")
    assert found.pop("design_00000_refined.pdb") == b"mine"
    assert len(found) == 2
    assert all(len(_points(data)) == 36 for data in found.values())


def test_designs_of_others_are_not_touched(call, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/design_00001.pdb").write_text("mine")
    with pytest.raises(InputError, match="unknown request"):
        call("length=8", "n=3", "out=d/")
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["design_00001.pdb"]


def test_one_file(call, tmp_path, capsys):
    for name in ("x.pdb", "x.cif"):
        call("length=5+6", "n=3", f"out={name}")
        models = list(parsed(tmp_path / name))
        assert len(models) == 3
        assert [c.id for c in models[0]] == ["A", "B"]
        points = [[a.coord for a in m.get_atoms()] for m in models]
        assert np.abs(np.subtract(points[0], points[1])).max() > 0.1
    call("length=5+6", "n=3", "out=d/")
    (alone,) = parsed(tmp_path / "d/design_00002.pdb")
    np.testing.assert_allclose([a.coord for a in alone.get_atoms()], points[2], atol=1e-3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "x.cif", "x.pdb"]


@pytest.mark.parametrize("out", ["d/", "x.pdb"])
def test_a_stopped_request_goes_on(out, call, tmp_path, monkeypatch, capsys):
    ask = ("length=8", "n=5", "batch=8")
    call(*ask, f"out=whole/{out}")
    save = Designs.save

    def stopping(self, number, *rest):
        if number == 2:
            raise KeyboardInterrupt
        save(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Designs, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            call(*ask, f"out={out}")
    assert "the same command goes on from" in capsys.readouterr().err
    assert not (tmp_path / "x.pdb").exists()
    call(*ask, f"out={out}")
    assert "going on after 2" in capsys.readouterr().err
    for path in (tmp_path / "whole").rglob("*.pdb"):
        assert (tmp_path / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()
    assert not list(tmp_path.rglob("*.partial"))


def test_trajectories_end_at_the_sample(call, tmp_path):
    call("length=7", "n=2", "out=d/", "trajectory=true")
    call("length=7", "n=1", "out=x.cif", "trajectory=true")
    for name in ("d/design_00000", "d/design_00001", "x"):
        suffix = ".cif" if name == "x" else ".pdb"
        frames = [
            [a.coord for a in m.get_atoms()]
            for m in parsed(tmp_path / f"{name}_trajectory{suffix}")
        ]
        (last,) = parsed(tmp_path / f"{name}{suffix}")
        assert len(frames) == STEPS + 1
        np.testing.assert_allclose(frames[-1], [a.coord for a in last.get_atoms()], atol=2e-3)
        size = np.std(frames[0])
        assert 4 < size < 16  # of the data (8), not of its noise (160)


def test_a_structure_to_vary(call, tmp_path):
    origin = replace(
        made(12, "helix"), sequence="ACDEFGHIKLXN", chain=np.array(["Q"] * 12),
        number=np.arange(-3, 9), insertion=np.array([""] * 11 + ["B"]),
    )  # fmt: skip
    write_backbone(tmp_path / "o.cif", origin, unknown="UNK")
    call("from=o.cif", "noise=2", "n=2", "out=d/")
    for path in (tmp_path / "d").glob("*.pdb"):
        found = from_structure(parsed(path))
        assert found.sequence == origin.sequence
        for what in ("chain", "number", "insertion"):
            assert getattr(found, what).tolist() == getattr(origin, what).tolist()
        told = re.search(r"RMSD (\S+) A", path.read_text())
        assert float(told[1]) == pytest.approx(rmsd(found, origin), abs=2e-3)
    with pytest.raises(InputError, match="other noise"):
        call("from=o.cif", "n=2", "out=d/")
    write_backbone(tmp_path / "o.cif", replace(origin, coords=origin.coords * 1.01))
    with pytest.raises(InputError, match="other structure"):
        call("from=o.cif", "noise=2", "n=2", "out=d/")


def test_lengths_beyond_training_are_told_once(call, tmp_path, capsys):
    call("length=61,70", "n=2", "out=d/", "batch=1")
    assert capsys.readouterr().err.count("more than the network was trained on (60)") == 1
    assert len(designs(tmp_path / "d")) == 4


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["length=0"], "length=0"),
        (["length=abc"], "length=abc"),
        (["length=60-40"], "write 40-60"),
        (["length=10", "ss=HHH"], "ss says 3 residues, length=10"),
        (["ss=HHHQ"], "'Q' at place 4"),
        (["helix=.7", "strand=.7"], "at most 1"),
        (["helix=abc"], "helix=abc"),
        (["symmetry=C77", "length=5"], "symmetry=C77"),
        (["from=nowhere.pdb"], "nowhere.pdb"),
        (["from=o.pdb", "length=12"], "length=12 and from="),
        (["from=o.pdb", "noise=900"], "noise=900"),
        (["from=ca.pdb"], "CA"),
        (["n=0"], "n=0"),
        (["n=2.5"], "n=2.5"),
        (["batch=0"], "batch=0"),
        (["label=1", "length=5"], "without classes"),
        (["lenght=5"], "did you mean length"),
        (["length=5", "temperature=.5", "sampler=ddim"], "temperature=0.5"),
        (["length=5", "guidance.scale=3"], "guidance.scale=3"),
        (["length=5-9", "out=x.pdb"], "models of one length"),
        (["length=5", "out=x.pdb", "trajectory=true"], "out=FOLDER/"),
        (["length=5", "out=x.pdb", "n=10000"], "9999 models"),
        (["length=9990-10500"], "write .cif"),
        (["length=5", "out=x.sdf"], "end it with /"),
        (["length=5", "out=o.pdb/"], "o.pdb"),
        (["length=5", "format=sdf"], "format=sdf"),
        (["length=5", "out=x.pdb", "format=cif"], "leave the format out"),
        (["length=5", "out=/proc/x/"], "/proc/x"),
    ],
)  # fmt: skip
def test_refused_without_a_trace(settings, says, run, tmp_path, refused):
    write_backbone(tmp_path / "o.pdb", made(12))
    lines = (tmp_path / "o.pdb").read_text().splitlines(keepends=True)
    (tmp_path / "ca.pdb").write_text("".join(x for x in lines if x[12:16] == " CA "))
    before = sorted(tmp_path.iterdir())
    assert says in refused("sample", f"run={run}", "device=cpu", *settings)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_a_terminated_process_and_two_together(run, call, start, finish, tmp_path, capsys):
    ask = ("length=40", "n=6", "batch=40", "sampler.steps=40")
    module = ("sciffusion.sample", f"run={run}", "device=cpu")
    process = start(*module, *ask, "out=d/")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("d/design_*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    assert 0 < len(designs(tmp_path / "d")) < 6
    call(*ask, "out=d/")
    assert "going on after" in capsys.readouterr().err
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    code, out, err = finish(*torchrun, *module, *ask, "out=two/")
    assert code == 0, err
    assert out.count("wrote two/") == 1
    assert_like(designs(tmp_path / "two"), designs(tmp_path / "d"))
