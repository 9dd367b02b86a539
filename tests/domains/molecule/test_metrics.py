import numpy as np
import pytest

from sciffusion.domains.molecule import busters
from sciffusion.domains.molecule.chem import from_smiles
from sciffusion.domains.molecule.graph import Record
from sciffusion.domains.molecule.metrics import Measures, evaluate_ensembles
from sciffusion.domains.molecule.peers import etkdg
from sciffusion.errors import InputError

FAST = {"peers": (), "energy": 2, "workers": 1, "resamples": 50}


@pytest.fixture(scope="module")
def references():
    graphs = [from_smiles(s) for s in ("C[C@H](O)CC=O", "OC/C=C/CN", "CCOCCc1ccccc1")]
    return [Record(g, etkdg(g, 8, i)) for i, g in enumerate(graphs)]


def changed(records, change):
    return [Record(r.graph, change(r.coords)) for r in records]


def twice(x):
    return np.concatenate([x, x])


def test_references_measured_as_samples_are_perfect(references):
    table = evaluate_ensembles(changed(references, twice), references, FAST, seconds=4.0)
    for name in ("COV-R mean", "COV-P mean", "stereo obeyed, returned"):
        assert table[name].value == 1
    assert table["AMR-R mean"].value < 1e-3
    assert table["bonds changed, returned"].value == 0
    assert table["molecules without samples"].value == 0
    assert table["conformers per second"].value == 48 / 4
    strain = table["MMFF94 strain, median"]
    assert strain.n == 6
    assert strain.value == pytest.approx(strain.floor, abs=20)
    assert {row.name for row in table.rows} >= {f"JS distance, {k}" for k in ("bonds", "angles")}


def test_mirror_images_and_broken_bonds_are_found(references):
    mirrored = changed(references, lambda x: twice(x) * np.float32([1, 1, -1]))
    table = evaluate_ensembles(mirrored, references, FAST, first_draw=references)
    assert table["stereo obeyed, returned"].n == 32  # the third molecule has none to obey
    assert table["stereo obeyed, returned"].value == 0.5  # E/Z stays as it is in a mirror
    assert table["stereo obeyed, first draw"].value == 1
    assert table["bonds changed, returned"].value == 0
    torn = changed(references, lambda x: twice(x) * np.float32(1.6))
    row = evaluate_ensembles(torn, references, FAST)["bonds changed, returned"]
    assert (row.value, row.n, row.floor) == (48, 48, 0)


def test_what_failed_is_counted_and_left_out(references):
    def spoilt(x):
        x = twice(x)
        x[3, 0] = np.nan
        return x

    samples = changed(references, spoilt)
    samples[1] = Record(samples[1].graph, samples[1].coords[:0])
    table = evaluate_ensembles(samples, references, FAST)
    assert table["molecules without samples"].value == 1
    assert table["conformers that are not finite"].value == 2
    assert table["conformers that are not finite"].n == 32
    assert table["molecules with fewer samples than two a reference"].value == 3
    assert table["COV-R mean"].value == pytest.approx(2 / 3)
    assert table["AMR-R mean"].n == 2
    assert table["AMR-R mean"].value < 1e-3

    nothing = evaluate_ensembles([Record(r.graph, r.coords[:0]) for r in references], references,
                                 FAST)  # fmt: skip
    assert nothing["COV-P mean"].value == 0
    assert np.isnan(nothing["AMR-P mean"].value)
    assert np.isnan(nothing["stereo obeyed, returned"].value)
    assert nothing.to_dict()["rows"]


def test_peers_stand_in_the_same_table(references):
    done = []
    settings = {**FAST, "peers": ("etkdg",), "energy": 0, "geometry": False}
    table = evaluate_ensembles(references, references, settings, progress=done.append)
    peer = table["AMR-R mean, ETKDGv3"]
    assert 0 < peer.value < 2
    assert peer.n == 3
    assert sum(done) == Measures.of(settings).rounds * 3


def test_checks_that_are_not_made_say_why(references, monkeypatch):
    settings = {**FAST, "energy": 0, "geometry": False}
    monkeypatch.setattr(busters, "installed", lambda: True)
    assert (
        "busters=2" in evaluate_ensembles(references, references, settings)["PoseBusters pass"].note
    )
    monkeypatch.setattr(busters, "installed", lambda: False)
    row = evaluate_ensembles(references, references, settings | {"busters": 2})["PoseBusters pass"]
    assert "pip install" in row.note
    assert np.isnan(row.value)


def test_checks_that_are_made_list_those_that_fail(references):
    pytest.importorskip("posebusters")
    settings = {**FAST, "energy": 0, "geometry": False, "busters": 1}
    some = references[:1]
    table = evaluate_ensembles(changed(some, lambda x: x * np.float32(0.6)), some, settings)
    assert table["PoseBusters pass"].value == 0
    assert table["PoseBusters pass"].floor == 1
    assert table["PoseBusters, bond lengths"].value == 0


def test_settings_may_hold_more_and_molecules_must_match(references):
    assert Measures.of({"delta": 0.5, "sampler": {}}).delta == 0.5
    with pytest.raises(InputError, match="samples of 2 molecules and references of 3"):
        evaluate_ensembles(references[:2], references)
    with pytest.raises(InputError, match="two molecules"):
        evaluate_ensembles(references[::-1], references, FAST)
