"""What is done stays done; what belongs to another request does not count."""

import pytest

from sciffusion.domains.molecule import journal
from sciffusion.domains.molecule.journal import Journal
from sciffusion.errors import InputError

REQUEST = {"input": "abc", "n": 3}


@pytest.fixture
def begun(tmp_path):
    found = Journal(tmp_path / "out.partial")
    assert found.begin(REQUEST) == ""
    for window in (2, 0):
        found.save(window, b"%d\n" % window, {"records": window})
    return found


def test_goes_on(begun):
    again = Journal(begun.folder)
    assert "2 windows" in again.begin(dict(REQUEST))
    assert [again.has(k) for k in range(4)] == [True, False, True, False]
    again.save(1, b"1\n", {"records": 1})
    again.join(3, begun.folder.parent / "out")
    assert (begun.folder.parent / "out").read_bytes() == b"0\n1\n2\n"
    assert [r["records"] for r in again.records(3)] == [0, 1, 2]
    again.clear()
    assert [p.name for p in begun.folder.parent.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("other", "named"), [({"input": "abc", "n": 4}, "(n)"), ({"input": "x", "n": 3}, "(input)")]
)
def test_another_request_starts_over(other, named, begun):
    assert named in begun.begin(other)
    assert not begun.has(0)


def test_asked_to_start_over(begun):
    assert begun.begin(REQUEST, resume=False) == ""
    assert not begun.has(0)


def test_a_damaged_request_starts_over(begun):
    (begun.folder / "request.json").write_text("{")
    assert "starting over" in begun.begin(REQUEST)
    assert not begun.has(2)


def test_a_window_without_its_record_is_not_done(begun):
    (begun.folder / "window-00000000.json").unlink()
    assert not begun.has(0)


def test_missing_windows_are_told(begun, monkeypatch):
    monkeypatch.setattr(journal, "PATIENCE", 0.0)
    with pytest.raises(InputError, match="run the command again"):
        begun.records(3)


def test_what_is_not_ours_is_left_alone(tmp_path):
    precious = tmp_path / "out.partial" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        Journal(precious.parent).begin(REQUEST)
    assert precious.exists()
