"""Preparation: a store however it was computed; a line for each chain that does not come in."""

import json
import tarfile

import numpy as np
import pytest

from sciffusion import prepare as entry
from sciffusion.domains.protein import prepare, shards
from sciffusion.domains.protein.backbone import Backbone
from sciffusion.domains.protein.lists import read_names
from sciffusion.domains.protein.prepare import Source
from sciffusion.domains.protein.shards import Order, Recipe
from sciffusion.domains.protein.store import read_store
from sciffusion.errors import InputError

SMALL = {"min_length": 8, "max_length": 40}


@pytest.fixture
def folder(pdb, tmp_path):
    """Six files, of one or two chains."""
    path = tmp_path / "in"
    path.mkdir()
    for k in range(6):
        chains = [pdb.chain("A", 20 + k, seed=k)]
        if k % 2:
            chains.append(pdb.chain("B", 12, seed=10 + k, far=60))
        (path / f"{k}abc.pdb").write_text(pdb.text(*chains))
    return path


def store(path, out, workers=1, only=None, clusters=None, **settings):
    recipe = Recipe(**{**SMALL, "identity": 0.0, **settings})
    notes = prepare.prepare(Source([path]), out, Order(recipe, only, clusters), workers)
    return list(read_store(out)), notes


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def names(records):
    return [r.name for r in records]


def test_what_goes_in_comes_out(folder, tmp_path, pdb):
    records, notes = store(folder, tmp_path / "out")
    assert names(records) == [
        "0abc_A", "1abc_A", "1abc_B", "2abc_A", "3abc_A", "3abc_B", "4abc_A", "5abc_A", "5abc_B",
    ]  # fmt: skip
    for k, record in enumerate(r for r in records if r.chains == ["A"]):
        np.testing.assert_array_equal(record.coords, pdb.coords(20 + k, k).astype(np.float32))
        assert record.sequence == pdb.sequence(20 + k, k)
        assert record.source.endswith(f"{k}abc.pdb, chain A")
        assert record.cluster == -1
    assert (notes.structures, notes.read, notes.chains, notes.left_out) == (6, 9, 9, [])
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["records"] == 9
    assert card["residues"] == sum(map(len, records))
    assert sum(card["lengths"].values()) == 9
    assert card["files"][0]["bytes"] == sum(p.stat().st_size for p in folder.iterdir())


def test_an_archive_is_the_same_store(folder, tmp_path):
    path = tmp_path / "in.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        tar.add(folder, "in")
    (one, _), (other, _) = (
        store(p, tmp_path / p.name.replace("in", "out")) for p in (folder, path)
    )
    assert sorted(names(one)) == sorted(names(other))


def test_processes_do_not_matter(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "FILES", 2)
    store(folder, tmp_path / "one", 1, identity=0.4)
    store(folder, tmp_path / "two", 2, identity=0.4)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(list((tmp_path / "one").glob("part-*"))) == 3


def test_a_stopped_preparation_goes_on_and_ends_the_same(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "FILES", 2)
    store(folder, tmp_path / "whole", identity=0.4)
    done = []

    def killed(job):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job)
        return shards.work(job)

    monkeypatch.setattr(prepare, "work", killed)
    with pytest.raises(KeyboardInterrupt):
        store(folder, tmp_path / "out", identity=0.4)
    assert not (tmp_path / "out" / "card.json").exists()
    monkeypatch.setattr(prepare, "work", shards.work)
    store(folder, tmp_path / "out", identity=0.4)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    monkeypatch.setattr(prepare, "work", None)  # a third call has nothing to do
    records, notes = store(folder, tmp_path / "out", identity=0.4)
    assert notes.records == len(records) == 9


def test_another_recipe_does_not_mix_in(folder, tmp_path):
    store(folder, tmp_path / "out")
    with pytest.raises(InputError, match="min_length: 8, now 9"):
        store(folder, tmp_path / "out", min_length=9)
    (folder / "9abc.pdb").write_text("")
    with pytest.raises(InputError, match="other files"):
        store(folder, tmp_path / "out")


def test_chains_are_cut_where_they_break(pdb, tmp_path):
    rows = pdb.chain("A", 40, first=101)
    del rows[25:28], rows[10]
    path = tmp_path / "1abc.pdb"
    path.write_text(pdb.text(rows))
    records, notes = store(path, tmp_path / "split", min_length=11)
    assert names(records) == ["1abc_A:112-125", "1abc_A:129-140"]
    assert all(r.joined.all() for r in records)
    assert notes.left_out == [
        f"{path}, chain A: residues 101-110: 10 long, less than min_length=11"
    ]
    with pytest.raises(InputError, match="broken at 2 places"):
        store(path, tmp_path / "leave", gaps="leave")


def test_long_chains_are_left_out_or_cropped(folder, tmp_path):
    records, notes = store(folder, tmp_path / "leave", max_length=23)
    assert len(records) == 7
    assert all("more than max_length=23" in line for line in notes.left_out)
    cropped, notes = store(folder, tmp_path / "crop", max_length=23, long="crop")
    assert notes.left_out == []
    assert sum(map(len, cropped)) == sum(len(r) for r in store(folder, tmp_path / "all")[0])
    assert names(cropped)[-3:] == ["5abc_A:1-12", "5abc_A:13-25", "5abc_B"]


def test_extended_and_disordered_chains_can_be_left_out(tmp_path):
    from sciffusion.domains.protein.geometry import build
    from sciffusion.domains.protein.writers import pdb_text

    path = tmp_path / "in"
    path.mkdir()
    rng = np.random.default_rng(0)
    shapes = {
        "helix": build(*np.radians([[-60.0] * 30, [-45.0] * 30, [180.0] * 30])),
        "rod": build(*np.radians([[-120.0] * 30, [130.0] * 30, [180.0] * 30])),
        "coil": build(*np.radians([*rng.choice([-70.0, 60.0, 90.0], (2, 30)), [180.0] * 30])),
    }
    for name, x in shapes.items():
        (path / f"{name}.pdb").write_text(pdb_text(Backbone.of(x)))
    compact, notes = store(path, tmp_path / "rg", max_rg=2.0)
    assert {"helix_A", "coil_A"} == set(names(compact))
    assert "rod.pdb, chain A: extended" in notes.left_out[0]
    ordered, notes = store(path, tmp_path / "loop", max_loop=0.6)
    assert {"helix_A", "rod_A"} == set(names(ordered))
    assert "neither helix nor strand" in notes.left_out[0]


def test_what_is_left_out_has_a_line_each(folder, tmp_path, pdb):
    trace = pdb.text([[row[1]] for row in pdb.chain("B", 12, far=60)])
    (folder / "0abc.pdb").write_text(pdb.text(pdb.chain("A", 5)))
    (folder / "1abc.pdb").write_text(pdb.text(pdb.chain("A", 20)).replace("END\n", "") + trace)
    (folder / "2abc.pdb").write_text("no structure")
    model = pdb.text(pdb.chain("A", 20)).replace("END\n", "ENDMDL\n")
    (folder / "4abc.pdb").write_text("".join(f"MODEL {k}\n{model}" for k in range(3)))
    records, notes = store(folder, tmp_path / "out")
    assert names(records) == ["1abc_A", "3abc_A", "3abc_B", "4abc_A", "5abc_A", "5abc_B"]
    lines = (tmp_path / "out" / "left_out.txt").read_text().splitlines()
    assert lines == notes.left_out
    found = [
        ("0abc.pdb, chain A: ", "5 long"),
        ("1abc.pdb, chain B: ", "CA atoms only"),
        ("2abc.pdb: ", "no PDB"),
        ("4abc.pdb: ", "3 models"),
    ]
    for line, (where, why) in zip(lines, found, strict=True):
        assert where in line
        assert why in line
    assert notes.models == 2


def test_lists_choose_chains_and_give_clusters(folder, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("file,length,cluster40\n1ABC_B,12,7\n3abc,23,8\n5abc_Q,1,9\n")
    listed = read_names(path)
    records, notes = store(folder, tmp_path / "out", only=listed, clusters=listed)
    assert [(r.name, r.cluster) for r in records] == [("1abc_B", 7), ("3abc_A", 8), ("3abc_B", 8)]
    assert len(notes.left_out) == 1
    assert "5abc.pdb, chain Q: the list names it" in notes.left_out[0]
    path.write_text("# mine\n1abc,B\n3abc\n\n4ABC.A\n")
    found, _ = store(folder, tmp_path / "plain", only=read_names(path))
    assert names(found) == ["1abc_B", "3abc_A", "3abc_B", "4abc_A"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names no chain"),
        ("file,cluster\n", "names no chain"),
        ("file,cluster\n1abc,x\n", "line 2: cluster 'x'"),
        ("file,cluster\n,3\n", "line 2: it has no name"),
    ],
)
def test_bad_lists_are_told(text, why, tmp_path):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=why):
        read_names(path)
    with pytest.raises(InputError, match="check the path"):
        read_names(tmp_path / "nowhere.csv")


def test_equal_chains_are_one_cluster(pdb, tmp_path):
    path = tmp_path / "1abc.pdb"
    chains = [
        pdb.chain(k, 30, seed=s, far=50 * j)
        for j, (k, s) in enumerate(zip("ABC", (0, 1, 0), strict=True))
    ]
    path.write_text(pdb.text(*chains))
    records, _ = store(path, tmp_path / "out", identity=0.4)
    assert [r.cluster for r in records] == [0, 1, 0]


def test_nothing_usable_is_an_error_and_leaves_nothing(tmp_path):
    path = tmp_path / "in.pdb"
    path.write_text("HEADER\n")
    with pytest.raises(InputError, match=r"no protein of in.pdb .* no PDB or mmCIF"):
        store(path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_the_command(folder, tmp_path, capsys):
    entry.main(
        ["domain=protein", f"input={folder}", f"out={tmp_path / 'out'}", "workers=1",
         "min_length=8", "identity=0.5"]
    )  # fmt: skip
    said = capsys.readouterr().out
    assert "9 chains of 171 residues, of 9 among 9 chains in 6 files" in said
    assert {r.cluster for r in read_store(tmp_path / "out")} == set(range(9))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "input=FILE or dataset=NAME"),
        (["input=IN"], "out=DIR"),
        (["input=nowhere.pdb", "out=OUT"], "nowhere.pdb"),
        (["input=-", "out=OUT"], "save it as a file"),
        (["input=IN", "out=OUT", "workers=0"], "workers"),
        (["input=IN", "out=OUT", "min_length=0"], "min_length=0"),
        (["input=IN", "out=OUT", "max_length=20"], "max_length=20"),
        (["input=IN", "out=OUT", "long=cut"], "leave or crop"),
        (["input=IN", "out=OUT", "gaps=fill"], "split or leave"),
        (["input=IN", "out=OUT", "max_rg=-1"], "max_rg"),
        (["input=IN", "out=OUT", "max_loop=2"], "max_loop"),
        (["input=IN", "out=OUT", "identity=x"], "identity"),
        (["input=IN", "out=OUT", "identity=null"], "identity"),
        (["input=IN", "out=OUT", "clusters=nowhere.csv"], "nowhere.csv"),
        (["input=IN", "out=OUT", "min_lenght=9"], "did you mean min_length?"),
        (["dataset=pdbb", "out=OUT"], "pdbb"),
    ],
)
def test_wrong_commands_are_one_line(arguments, says, folder, tmp_path, capsys):
    arguments = [
        a.replace("=IN", f"={folder}").replace("=OUT", f"={tmp_path / 'out'}") for a in arguments
    ]
    with pytest.raises(SystemExit) as leave:
        entry.cli(["domain=protein", *arguments])
    err = capsys.readouterr().err
    assert leave.value.code == 2
    assert err.count("\n") == 1
    assert says in err
    assert not list(tmp_path.rglob("part-*"))
