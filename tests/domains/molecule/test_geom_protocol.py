import numpy as np
import pytest

from sciffusion.domains.molecule.chem import from_smiles
from sciffusion.domains.molecule.geom_protocol import (
    GeomResult,
    Nearest,
    geom_protocol,
    reference_floor,
)
from sciffusion.domains.molecule.graph import Record
from sciffusion.domains.molecule.peers import etkdg
from sciffusion.errors import InputError


def result(*matrices, delta=0.75):
    pairs = enumerate(np.asarray(m, dtype=float) for m in matrices)
    return GeomResult([Nearest.of(str(i), m) for i, m in pairs], delta)


@pytest.fixture(scope="module")
def record():
    graph = from_smiles("CCOC(=O)CCNc1ccccc1", name="ester")
    return Record(graph, etkdg(graph, 6, 3))


def test_a_matrix_worked_out_by_hand():
    # two references (columns), four samples (rows)
    found = result([[0.2, 1.0], [0.9, 0.8], [2.0, 3.0], [0.75, 2.0]])
    assert found.mean() == pytest.approx(
        {
            "COV-R": 1 / 2,  # 0.2, not 0.8
            "AMR-R": (0.2 + 0.8) / 2,
            "COV-P": 1 / 4,  # 0.2; 0.75 is not nearer than 0.75
            "AMR-P": (0.2 + 0.8 + 2.0 + 0.75) / 4,
        }
    )
    wide = result([[0.2, 1.0], [0.9, 0.8], [2.0, 3.0], [0.75, 2.0]], delta=0.81)
    assert (wide.mean()["COV-R"], wide.mean()["COV-P"]) == (1, 0.75)
    assert result([[0.75]]).mean()["COV-R"] == 0


def test_molecules_count_alike_whatever_their_size():
    found = result([[0.0], [0.0]], np.full((20, 10), 1.0), np.full((4, 2), 3.0))
    assert found.mean()["COV-R"] == pytest.approx(1 / 3)
    assert found.mean()["AMR-R"] == pytest.approx(4 / 3)
    assert found.median()["AMR-R"] == 1


def test_a_molecule_without_samples_covers_nothing_and_has_no_distance():
    found = result([[0.5], [0.5]], np.zeros((0, 3)))
    assert found.mean() == {"COV-R": 0.5, "AMR-R": 0.5, "COV-P": 0.5, "AMR-P": 0.5}
    assert found.failed == ["1"]
    assert found.short == 1
    nothing = result(np.zeros((0, 3)))
    assert nothing.mean()["COV-R"] == 0
    assert np.isnan(nothing.mean()["AMR-R"])


def test_the_references_themselves_are_perfect_and_motion_changes_nothing(record):
    twice = Record(record.graph, np.concatenate([record.coords + 5, record.coords[::-1]]))
    found = geom_protocol([(twice, record)], delta=0.01)
    assert found.mean()["COV-R"] == found.mean()["COV-P"] == 1
    assert max(found.mean()["AMR-R"], found.mean()["AMR-P"]) < 1e-3
    assert found.short == 0


def test_only_the_first_two_samples_a_reference_count(record):
    one = Record(record.graph, record.coords[:1])
    late = Record(record.graph, record.coords[[1, 2, 0, 0]])  # the good ones come too late
    early = Record(record.graph, record.coords[[0, 1, 2, 3]])
    cut, good = (geom_protocol([(s, one)], delta=0.01) for s in (late, early))
    assert cut.mean()["COV-R"] == 0
    assert good.mean()["COV-R"] == 1
    assert good.mean()["COV-P"] == 0.5


def test_coverage_grows_with_delta_and_stands_in_its_interval(record):
    rng = np.random.default_rng(0)
    found = result(*(rng.uniform(0, 2, size=(2 * k, k)) for k in range(1, 12)))
    curve = found.curve(np.linspace(0, 2, 9))
    for name in ("COV-R", "COV-P"):
        values = [point[name] for point in curve]
        assert values == sorted(values)
        assert (values[0], values[-1]) == (0, 1)
    rows = found.rows(resamples=100)
    assert [r.name.split()[0] for r in rows[:4]] == ["COV-R", "AMR-R", "COV-P", "AMR-P"]
    for row in rows:
        assert row.low <= row.value <= row.high
        assert row.n == 11


def test_the_floor_is_of_real_conformers_that_do_not_repeat(record):
    one = Record(record.graph, np.repeat(record.coords[:1], 6, axis=0))
    assert reference_floor([one]).mean()["COV-R"] == 1
    own = reference_floor([record, Record(record.graph, record.coords[:2])])
    assert len(own.molecules) == 1  # two conformers cannot be cut in three
    assert len(own.molecules[0].precision) == 2 * len(own.molecules[0].recall) == 4
    assert own.mean()["AMR-R"] > 0.1
    assert reference_floor([Record(record.graph, record.coords[:2])]).molecules == []


def test_says_what_cannot_be_measured(record):
    empty = Record(record.graph, record.coords[:0])
    bad = Record(record.graph, record.coords * np.nan)
    for pairs, delta, message in (
        ([], 0.75, "0 molecules"),
        ([(record, record)], 0, "delta=0"),
        ([(record, empty)], 0.75, "'ester' has no reference"),
        ([(bad, record)], 0.75, "'ester': samples are not finite"),
        ([(record, bad)], 0.75, "'ester': references are not finite"),
    ):
        with pytest.raises(InputError, match=message):
            geom_protocol(pairs, delta)
