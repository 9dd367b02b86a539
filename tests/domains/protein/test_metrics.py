import shlex
import sys
from dataclasses import replace

import numpy as np
import pytest

from sciffusion import resources
from sciffusion.domains.protein import similarity
from sciffusion.domains.protein.backbone import Backbone
from sciffusion.domains.protein.geometry import build
from sciffusion.domains.protein.metrics import ProteinMeasures, evaluate_backbones, find
from sciffusion.errors import InputError

pytest.importorskip("tmtools")
FAST = ProteinMeasures(pairs=3, novelty=2, workers=1, floors=2, resamples=20)
ALONE = replace(FAST, pairs=0, novelty=0)


def chain(seed, length):
    rng = np.random.default_rng(seed)
    basins = np.array([(-63, -42), (-120, 130), (-75, 150)], float)
    which = np.repeat(rng.integers(3, size=length), rng.integers(1, 12, length))[:length]
    phi, psi = np.radians(basins[which] + rng.normal(0, 8, (length, 2))).T
    return Backbone.of(build(phi, psi, np.full(length, np.pi)), name=f"{seed}")


@pytest.fixture(scope="module")
def train():
    return [chain(k, 40 + k) for k in range(24)]


@pytest.fixture(scope="module")
def references():
    return [chain(100 + k, 42 + 2 * k) for k in range(10)]


def test_real_chains_score_as_their_floor(train, references):
    samples = [chain(200 + k, 45 + k) for k in range(8)]
    done = []
    found = find(samples, references, train, FAST, seconds=4.0, progress=done.append)
    table = found.table
    assert sum(done) == FAST.steps(samples, references, train)
    for row in table.rows[1:-1]:
        assert row.floor is not None, row.name
        assert row.value == pytest.approx(row.floor, abs=0.35), row.name
        assert row.low <= row.value + 1e-9, row.name
        assert row.low >= 0
    for name in ("CA-CA valid", "clusters a sample"):
        assert table[name].better == "higher"
        assert table[name].high <= 1
    assert table["CA-CA valid"].n == 8
    assert table["TM of pairs of samples, mean"].n == 3  # three pairs are allowed
    assert table["samples per second"].value == 2
    assert len(found.novelty) == 8
    assert len(found.usual) == 10


def test_copies_of_training_chains_are_told(train, references):
    table = evaluate_backbones(train[:4] + references[:4], references, train, FAST)
    assert table["copies, TM > 0.95"].value == 0.5
    assert table["copies, TM > 0.95"].floor == 0


def test_one_structure_again_and_again_has_no_variety(train, references):
    table = evaluate_backbones([train[3]] * 3, references, train, FAST)
    assert table["TM of pairs of samples, mean"].value == pytest.approx(1)
    assert table["clusters a sample"].value == pytest.approx(1 / 3)


def test_broken_samples_are_counted_and_bad_ones_show(train, references):
    spoilt = replace(train[0], coords=np.where(np.arange(3) == 0, np.nan, train[0].coords))
    mirrors = [replace(b, coords=b.coords * [1, 1, -1]) for b in train[5:9]]
    table = evaluate_backbones([spoilt, *mirrors], references, train, ALONE)
    row = table["samples that are not finite"]
    assert (row.value, row.n) == (1, 5)
    assert table["JS, CA angle and dihedral"].n == 4
    for name in ("left-handed helix", "JS, CA angle and dihedral", "JS, Ramachandran"):
        assert table[name].value > table[name].floor + 0.05
    assert table["CA-CA valid"].value == 1
    assert np.isnan(table["copies, TM > 0.95"].value)
    assert "novelty=0" in table["copies, TM > 0.95"].note
    with pytest.raises(InputError, match="0 finite samples"):
        evaluate_backbones([spoilt], references, train, ALONE)
    with pytest.raises(InputError, match="0 training chains"):
        evaluate_backbones(mirrors, references, [], ALONE)


def test_references_and_floors_are_as_long_as_the_samples(train):
    references = [chain(300 + k, n) for k, n in enumerate([50] * 55 + [60] * 45)]
    samples = [chain(400 + k, 50) for k in range(3)]
    table = evaluate_backbones(samples, references, train, ALONE)
    assert "against 55 held-out chains of 50 to 50" in table.title
    few = evaluate_backbones(samples, references[45:], train, ALONE)  # 10 are as long
    assert "against 50 held-out chains of 50 to 60" in few.title


def test_more_samples_than_training_chains_have_no_floor(train, references):
    table = evaluate_backbones(train[:4], references, train[:3], ALONE)
    assert table["CA-CA valid"].floor is None


def test_a_missing_aligner_is_told(train, references, monkeypatch):
    monkeypatch.setattr(similarity, "installed", lambda: False)
    done = []
    table = evaluate_backbones(train[:3], references, train, FAST, progress=done.append)
    for name in ("clusters a sample", "copies, TM > 0.95"):
        assert "pip install tmtools" in table[name].note
    assert sum(done) == FAST.steps(train[:3], references, train)


SCRIPT = """
import pathlib, sys
folder, out = sys.argv[-2:]
files = sorted(pathlib.Path(folder).glob("*.pdb"))
lines = [f"{f.stem},{f.read_text().count(' CA ')},{'' if k else 0.5}" for k, f in enumerate(files)]
pathlib.Path(out).write_text("\\n".join(["design,residues,scTM", *lines]))
"""


def external(code):
    return replace(ALONE, external=f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}")


def test_an_external_command_adds_its_columns(train, references):
    samples = train[:3]
    table = evaluate_backbones(samples, references, train, external(SCRIPT))
    assert table["residues"].value == pytest.approx(np.mean([len(b) for b in samples]))
    assert (table["scTM"].value, table["scTM"].n) == (0.5, 1)
    assert "design" not in {row.name for row in table.rows}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (external("raise SystemExit('no GPU')"), "exit code 1; it said: no GPU"),
        (external("pass"), "must write the file"),
        (
            external("import sys; open(sys.argv[-1], 'w').write('a\\n1\\n')"),
            "1 lines for 3 designs",
        ),
        (replace(ALONE, external="no-such-program"), "cannot be run"),
    ],
)
def test_an_external_command_that_fails_is_told_in_a_line(train, references, how, message):
    with pytest.raises(InputError, match=message):
        evaluate_backbones(train[:3], references, train, how)


def test_settings_come_from_the_packaged_file():
    text = resources.path("configs", "measures/protein.yaml").read_text()
    for field in ("n", "lengths", "pairs", "novelty", "external", "workers"):
        assert f"\n{field}:" in text
    how = ProteinMeasures.of({"n": 7, "novelty": True, "sampler": {}})
    assert (how.n, how.novelty) == (7, 100)
    with pytest.raises(InputError, match="n=0 must be a number, at least 1"):
        ProteinMeasures.of({"n": 0})
