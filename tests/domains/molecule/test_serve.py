"""The command from its settings to its files, whatever happens on the way."""

import gzip
import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from rdkit import Chem

from sciffusion.domains.molecule.serve import serve_with
from sciffusion.errors import InputError

LIST = """SMILES,name
CC(=O)Nc1ccc(O)cc1,paracetamol

C1CC,ring
C[C@H](N)C(=O)O,alanine
C[Si](C)(C)C,tms
CCO,ethanol
CC(F)C=CC,ethanol
CCO,ethanol
O,
"C[C@@H](O)[C@H](F)/C=C\\C#N","α, β"
CC(=O)[O-].[Na+],acetate
"""
NAMES = [
    "paracetamol",
    "alanine",
    "ethanol",
    "ethanol_2",
    "ethanol_3",
    "molecule_8",
    "α, β",
    "acetate",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text(LIST, encoding="utf-8")
    return tmp_path


@pytest.fixture
def serve(stand_in, folder):
    def call(**settings):
        return serve_with(stand_in.draw, stand_in.FACTS, stand_in.CONFIG | settings, together=6)

    return call


@pytest.fixture
def launch(stand_in, folder):
    """Start the stand-in's script; returns the process."""
    keep = {k: v for k, v in os.environ.items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    processes = []

    def call(*arguments, before=()):
        process = subprocess.Popen(
            [sys.executable, *before, str(stand_in.SCRIPT), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=keep,
            start_new_session=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield call
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def names(path):
    return [m.GetProp("_Name") for m in Chem.SDMolSupplier(str(path), removeHs=False)]


def test_a_list(serve, folder, capsys):
    with pytest.raises(InputError, match=r"served 8 of 10; 2 failed: see out.sdf.failed.txt"):
        serve(input="list.csv", out="out.sdf", n=2)
    assert names("out.sdf") == [name for name in NAMES for _ in range(2)]
    said = capsys.readouterr()
    assert "16 conformers of 8 molecules" in said.out
    failed = (folder / "out.sdf.failed.txt").read_text().splitlines()
    assert len(failed) == 2
    for line, (number, reason) in zip(failed, ((4, "cannot be parsed"), (6, "Si")), strict=True):
        assert f"list.csv, line {number}: " in line
        assert reason in line
        assert f"sciffusion: {line}" in said.err.splitlines()
    assert sorted(p.name for p in folder.iterdir()) == [
        "list.csv", "out.sdf", "out.sdf.failed.txt"
    ]  # fmt: skip


def test_less_than_asked_for_is_told(stand_in, folder, capsys):
    def harmful(graphs, numbers):
        """Rubbish for ethanol, half of the time for paracetamol."""
        for graph, number, x in zip(graphs, numbers, stand_in.draw(graphs, numbers), strict=True):
            yield x * np.nan if len(graph) == 9 or (len(graph) == 20 and number % 2) else x

    settings = stand_in.CONFIG | {"input": "list.csv", "out": "out.sdf", "n": 8, "tries": 2}
    with pytest.raises(InputError, match=r"served 6 of 10; 4 failed and 1 got fewer conformers"):
        serve_with(lambda *ask: list(harmful(*ask)), stand_in.FACTS, settings, together=60)
    first, *others = (folder / "out.sdf.failed.txt").read_text().splitlines()
    assert "line 2: paracetamol: got " in first
    assert 0 < names("out.sdf").count("paracetamol") < 8
    assert len(others) == 4
    assert first in capsys.readouterr().err


@pytest.mark.parametrize("smiles", ["C[C@H](N)C(=O)O", "N#C/C=C\\C", "[O-][N+](=O)c1ccccc1", "O"])
def test_one_smiles(smiles, serve, capsys):
    serve(smiles=smiles, out="one.sdf")
    found = list(Chem.SDMolSupplier("one.sdf", removeHs=False))
    assert {Chem.MolToSmiles(Chem.RemoveHs(m)) for m in found} == {Chem.CanonSmiles(smiles)}
    assert {m.GetProp("SMILES") for m in found} == {Chem.CanonSmiles(smiles)}
    assert names("one.sdf") == ["one"] * 3
    said = capsys.readouterr()
    assert "3 conformers of 1 molecule" in said.out
    assert said.err == ""


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"smiles": "C1CC"}, "SMILES 'C1CC'"),
        ({"smiles": ""}, "empty"),
        ({"smiles": "C C"}, "spaces"),
        ({"smiles": "[Fe]"}, "it holds Fe"),
        ({"smiles": "CO", "input": "list.csv"}, "one of the two"),
        ({}, "one of the two"),
        ({"input": "nowhere.smi"}, "nowhere.smi"),
        ({"input": "empty.smi"}, "empty"),
        ({"input": "list.docx"}, "known kind"),
        ({"input": "."}, "no .xyz files"),
        ({"input": "folder.smi"}, "no .xyz files"),
        ({"smiles": "C", "out": "folder.smi/../.sdf"}, ".sdf"),
        ({"smiles": "C", "out": "/proc/x.sdf"}, "/proc/x.sdf"),
        ({"smiles": "C", "out": "x.mol2"}, ".sdf"),
        ({"smiles": "C", "out": "list.csv/x.sdf"}, "list.csv"),
        ({"input": "list.sdf", "out": "./list.sdf"}, "is the input"),
        ({"smiles": "C", "n": 0}, "n=0"),
        ({"smiles": "C", "relax": "uff"}, "relax=uff"),
    ],
)
def test_refused_without_a_trace(settings, says, serve, folder):
    for name in ("empty.smi", "list.docx", "list.sdf"):
        (folder / name).write_text("")
    (folder / "folder.smi").mkdir()
    before = sorted(folder.iterdir())
    with pytest.raises(InputError) as refused:
        serve(**({"out": "x.sdf"} | settings))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert sorted(folder.iterdir()) == before


def test_none_served_leaves_the_old_file(serve, folder):
    (folder / "bad.smi").write_text("C1CC\n[Fe]\n")
    (folder / "out.sdf").write_text("old")
    with pytest.raises(InputError, match="served 0 of 2"):
        serve(input="bad.smi", out="out.sdf")
    assert (folder / "out.sdf").read_text() == "old"
    serve(smiles="C", out="out.sdf")
    assert names("out.sdf") == ["out"] * 3
    assert not (folder / "out.sdf.failed.txt").exists()


def test_formats_hold_the_same(serve, folder):
    for out in ("a.sdf", "a.sdf.gz", "a.xyz", "a.pdb", "a/"):
        with pytest.raises(InputError, match="served 8 of 10"):
            serve(input="list.csv", out=out)
    plain = (folder / "a.sdf").read_bytes()
    assert gzip.decompress((folder / "a.sdf.gz").read_bytes()) == plain
    assert (folder / "a.xyz").read_text().count("Properties=") == plain.count(b"$$$$") == 24
    assert (folder / "a.pdb").read_text().count("ENDMDL") == 24
    files = [p for p in (folder / "a").iterdir() if p.suffix == ".sdf"]
    assert len(files) == 8
    assert sorted(n for p in files for n in names(p)) == sorted(names("a.sdf"))
    assert {p.name for p in (folder / "a").iterdir()} - {p.name for p in files} == {"failed.txt"}


def test_a_folder_of_xyz_files(serve, folder):
    serve(smiles="CCO", out="x.xyz", n=1)
    serve(smiles="C#N", out="y.xyz", n=1)
    (folder / "in").mkdir()
    for name in ("x.xyz", "y.xyz"):
        (folder / name).rename(folder / "in" / name)
    serve(input="in", out="z.sdf", n=1)
    found = Chem.SDMolSupplier("z.sdf", removeHs=False)
    assert [Chem.MolToSmiles(Chem.RemoveHs(m)) for m in found] == ["CCO", "C#N"]


def test_isomers_have_names_of_their_own(serve):
    serve(smiles="CC(F)C=CC", stereo="enumerate", n=2, out="x.sdf")
    assert names("x.sdf") == [f"x_iso{k}" for k in range(1, 5) for _ in range(2)]
    smiles = {m.GetProp("SMILES") for m in Chem.SDMolSupplier("x.sdf")}
    assert len(smiles) == 4


def test_standard_input_is_a_file_like_others(serve, folder, monkeypatch):
    with pytest.raises(InputError):
        serve(input="list.csv", out="a.sdf")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LIST.encode())))
    with pytest.raises(InputError, match="served 8 of 10"):
        serve(input="-", out="b.sdf")
    assert (folder / "a.sdf").read_bytes() == (folder / "b.sdf").read_bytes()
    assert "stdin, line 4" in (folder / "b.sdf.failed.txt").read_text()
    assert len(list(folder.iterdir())) == 5


def test_empty_standard_input_leaves_nothing(serve, folder, monkeypatch):
    before = sorted(folder.iterdir())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(InputError, match="stdin holds no molecule"):
        serve(input="-", out="x.sdf")
    assert sorted(folder.iterdir()) == before


def test_a_folder_in_the_way_is_told_before_any_drawing(stand_in, folder):
    (folder / "x.sdf").mkdir()
    with pytest.raises(InputError, match=r"x\.sdf is a directory"):
        serve_with(None, stand_in.FACTS, stand_in.CONFIG | {"smiles": "C", "out": "x.sdf"})
    assert not list(folder.glob("x.sdf.*"))


def test_a_molecule_is_the_same_in_another_list(serve, folder):
    with pytest.raises(InputError):
        serve(input="list.csv", out="a.sdf")
    header, *lines = LIST.splitlines()
    (folder / "list.csv").write_text("\n".join([header, *reversed(lines)]), encoding="utf-8")
    with pytest.raises(InputError):
        serve(input="list.csv", out="b.sdf")
    blocks = [
        {block.partition("\n")[2] for block in (folder / f).read_text().split("$$$$\n")}
        for f in ("a.sdf", "b.sdf")
    ]
    assert blocks[0] == blocks[1]


@pytest.fixture
def interrupted(stand_in, folder):
    """Ctrl-C after some windows."""

    def call(windows, **settings):
        calls = []

        def draw(graphs, numbers):
            calls.append(numbers)
            if len(list(folder.rglob("window-*.json"))) >= windows:
                raise KeyboardInterrupt
            return stand_in.draw(graphs, numbers)

        with pytest.raises(KeyboardInterrupt):
            serve_with(draw, stand_in.FACTS, stand_in.CONFIG | settings, together=6)

    return call


@pytest.mark.parametrize("out", ["x.sdf", "x.sdf.gz", "x/"])
def test_a_stopped_request_goes_on(out, serve, interrupted, folder, capsys):
    with pytest.raises(InputError):
        serve(input="list.csv", out=f"whole-{out}")
    for windows in (2, 3):
        interrupted(windows, input="list.csv", out=out)
    capsys.readouterr()
    with pytest.raises(InputError, match="served 8 of 10; 2 failed"):
        serve(input="list.csv", out=out)
    assert "going on after 3 windows" in capsys.readouterr().err
    assert_same(folder / out, folder / f"whole-{out}")
    assert not list(folder.rglob("*partial*"))


def test_what_is_done_is_not_drawn_again(stand_in, interrupted, folder):
    settings = {"input": "list.csv", "out": "x.sdf"}
    interrupted(4, **settings)
    drawn = set()

    def draw(graphs, numbers):
        drawn.update(graph.smiles for graph in graphs)
        return stand_in.draw(graphs, numbers)

    with pytest.raises(InputError):
        serve_with(draw, stand_in.FACTS, stand_in.CONFIG | settings, together=6)
    assert all("#N" in smiles or smiles == "CC(=O)[O-]" for smiles in drawn)
    assert len(drawn) == 2


def assert_same(one, other):
    pairs = [(one, other)]
    if one.is_dir():
        assert len(list(one.iterdir())) == len(list(other.iterdir())) == 9
        pairs = [(p, other / p.name) for p in one.glob("*.sdf")]
    for a, b in pairs:
        assert a.read_bytes() == b.read_bytes()


def test_a_changed_request_starts_over(serve, interrupted, folder, capsys):
    serve_list = {"input": "list.csv", "out": "x.sdf"}
    with pytest.raises(InputError):
        serve(input="list.csv", out="y.sdf")
    interrupted(2, **serve_list, seed=1)
    with pytest.raises(InputError):
        serve(**serve_list)
    assert "another request (seed): starting over" in capsys.readouterr().err
    assert_same(folder / "x.sdf", folder / "y.sdf")
    (folder / "list.csv").write_text(LIST.replace("CCO", "CCN"), encoding="utf-8")
    interrupted(2, **serve_list)
    (folder / "list.csv").write_text(LIST, encoding="utf-8")
    with pytest.raises(InputError):
        serve(**serve_list)
    assert "another request (input): starting over" in capsys.readouterr().err
    assert_same(folder / "x.sdf", folder / "y.sdf")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "code", "out"), [(signal.SIGKILL, -9, "x.sdf"), (signal.SIGTERM, 143, "x/")]
)
def test_a_killed_process_can_be_gone_on_with(stop, code, out, serve, launch, folder, capsys):
    with pytest.raises(InputError):
        serve(input="list.csv", out=f"whole-{out}")
    process = launch("input=list.csv", f"out={out}", "pause=0.3")
    deadline = time.monotonic() + 60
    while not list(folder.rglob("window-*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    if out == "x/":
        assert not list(folder.rglob("*.tmp*"))
        (folder / "x/.a.0123.tmp.sdf").write_text("what a harder kill leaves")
    assert 0 < len(list(folder.rglob("window-*.json"))) < 5
    capsys.readouterr()
    with pytest.raises(InputError, match="served 8 of 10; 2 failed"):
        serve(input="list.csv", out=out)
    assert "going on after" in capsys.readouterr().err
    assert_same(folder / out, folder / f"whole-{out}")


@pytest.mark.slow
def test_two_processes_serve_as_one(serve, launch, folder):
    with pytest.raises(InputError):
        serve(input="list.csv", out="one.sdf")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = launch("input=list.csv", "out=two.sdf", before=torchrun)
    out, err = process.communicate(timeout=120)
    assert out.count("wrote two.sdf") == 1
    assert err.count("served 8 of 10") == 1, err
    assert process.returncode != 0
    assert (folder / "one.sdf").read_bytes() == (folder / "two.sdf").read_bytes()
    assert not (folder / "two.sdf.partial").exists()
