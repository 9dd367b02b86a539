"""What people ask for: understood, or refused with a line."""

import numpy as np
import pytest
from support.backbones import made
from support.protein_run import FACTS

from sciffusion.domains.protein.requests import Request, Settings
from sciffusion.domains.protein.secondary import LETTERS
from sciffusion.domains.protein.typed import parse_length, parse_ss
from sciffusion.domains.protein.writers import write_backbone
from sciffusion.errors import InputError


def request(copies=1, **settings):
    return Request(Settings(**settings), FACTS, copies)


@pytest.mark.parametrize(
    ("length", "kinds"),
    [
        (100, [[(100, 100)]]),
        ("100", [[(100, 100)]]),
        ("60-128", [[(60, 128)]]),
        ("60, 80,100", [[(60, 60)], [(80, 80)], [(100, 100)]]),
        ([60, 80], [[(60, 60)], [(80, 80)]]),
        (np.array([60, 80]), [[(60, 60)], [(80, 80)]]),
        ("40+40", [[(40, 40), (40, 40)]]),
        ("30-50+7,9", [[(30, 50), (7, 7)], [(9, 9)]]),
    ],
)
def test_lengths(length, kinds):
    assert parse_length(length) == kinds


def test_a_range_is_uniform_with_both_its_ends():
    sizes = np.array(request(length="10-13", n=4000).sizes)
    found, count = np.unique(sizes, return_counts=True)
    assert found.tolist() == [10, 11, 12, 13]
    assert np.abs(count - 1000).max() < 5 * np.sqrt(1000)


def test_a_samples_length_follows_from_seed_and_number():
    few, many = request(length="40-90+5-9", n=5), request(length="40-90+5-9", n=50)
    assert few.chains == many.chains[:5]
    assert few.chains != request(length="40-90+5-9", n=5, seed=1).chains
    assert all(40 <= a <= 90 and 5 <= b <= 9 for a, b in many.chains)


def test_several_lengths_come_in_turn():
    asked = request(length="5,7,9", n=2)
    assert asked.total == 6
    assert asked.sizes == [5, 7, 9, 5, 7, 9]


def test_lengths_by_default_are_those_of_the_training_chains():
    assert set(request(n=60).sizes) == set(FACTS["lengths"])


def test_copies_of_a_symmetry_are_chains():
    assert request(3, length="10+4", n=1).chains == [(10, 4, 10, 4, 10, 4)]
    asked = request(2, ss="HHE", n=1)
    assert asked.chains == [(3, 3)]
    assert asked.secondary.tolist() == [1, 1, 2, 1, 1, 2]


def test_secondary_structure():
    (codes,) = parse_ss("hHEeLcCx-")
    assert codes.tolist() == [1, 1, 2, 2, 0, 0, 0, 3, 3]
    assert [LETTERS[k] for k in codes[:5]] == list("HHEEL")
    assert [len(c) for c in parse_ss("HHH+EEEE")] == [3, 4]
    assert request(ss="HHHEE").sizes == [5] * 10
    assert request(ss="HHH+EEEE").chains[0] == (3, 4)
    assert request(ss="HHHEE", length="3+2").chains[0] == (3, 2)


def test_what_is_not_said_of_the_content_is_as_in_real_chains():
    assert request(length=9).content is None
    assert request(length=9, helix=0.3, strand=0.2).content == [(0.3, 0.2)]
    ((helix, strand),) = request(length=9, helix=0.9).content
    assert (helix, strand) == (0.9, 0)
    ((helix, strand),) = request(length=9, helix=0.0).content
    assert 0.3 < strand < 0.4  # measured: 0.36 in chains of under 10% helix
    for share in np.linspace(0, 1, 11):
        for name in ("helix", "strand"):
            (both,) = request(length=9, **{name: float(share)}).content
            assert min(both) >= 0
            assert sum(both) <= 1 + 1e-12


def test_where_nothing_is_said_shares_are_those_of_training_chains_of_like_length():
    folds = [(40, 0.8, 0.0)] * 30 + [(90, 0.1, 0.5)] * 15 + [(90, 0.5, 0.1)] * 15
    facts = FACTS | {"folds": folds}
    short = Request(Settings(n=50, length=45), facts).content
    assert set(short) == {(0.8, 0.0)}
    long = Request(Settings(n=400, length=90), facts).content
    assert set(long) == {(0.1, 0.5), (0.5, 0.1)}
    assert abs(sum(row == (0.5, 0.1) for row in long) / 400 - 9 / 24) < 0.1
    assert Request(Settings(n=7, length=90), facts).content == long[:7]  # the sample's own
    for settings in ({"typical": False}, {"ss": "H" * 90}, {"label": 1}):
        assert Request(Settings(n=5, length=90, **settings), facts).content is None


def test_beyond_what_it_was_trained_on():
    assert request(length=60).beyond == ""
    assert "61 residues" in request(length="50-61", n=500).beyond
    assert "120 residues" in request(6, length=20).beyond


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"length": 0}, "length=0"),
        ({"length": "abc"}, "length=abc"),
        ({"length": ""}, "length="),
        ({"length": "-5"}, "length=-5"),
        ({"length": "10.5"}, "length=10.5"),
        ({"length": "40+"}, "length=40+"),
        ({"length": "60-40"}, "write 40-60"),
        ({"length": 10**6}, "at most"),
        ({"length": 10**12}, "cannot be read"),
        ({"length": 12, "ss": "HHHHHLLEEEE"}, "ss says 11 residues, length=12"),
        ({"length": "11,12", "ss": "HHHHHLLEEEE"}, "length=11,12"),
        ({"length": "5-20", "ss": "HHHHHLLEEEE"}, "length=5-20"),
        ({"length": "4+3", "ss": "HHH+HHHH"}, "ss says 3+4 residues"),
        ({"ss": "HHBHH"}, "'B' at place 3"),
        ({"ss": ""}, "at least 1 residue"),
        ({"ss": "HH+"}, "at least 1 residue"),
        ({"ss": "HH", "helix": 0.5}, "leave helix= out"),
        ({"helix": 1.5}, "helix=1.5"),
        ({"strand": -0.1}, "strand=-0.1"),
        ({"strand": float("nan")}, "strand=nan"),
        ({"helix": "much"}, "helix=much"),
        ({"helix": 0.7, "strand": 0.5}, "helix=0.7 and strand=0.5"),
        ({"n": 0}, "n=0"),
        ({"n": 2.5}, "n=2.5"),
        ({"seed": "x"}, "seed=x"),
        ({"label": "x"}, "label=x"),
        ({"guidance": 2.0, "typical": False}, "guidance.scale=2"),
        ({"temperature": -1}, "temperature=-1"),
        ({"temperature": "hot"}, "temperature=hot"),
        ({"noise": 3.0}, "from=FILE"),
        ({"origin": "x.pdb", "noise": "x"}, "noise=x"),
        ({"origin": "x.pdb", "length": 5}, "length=5 and from="),
        ({"origin": "x.pdb", "symmetry": "C3"}, "symmetry=C3 and from="),
        ({"symmetry": "C3", "rotate": True}, "rotate=true"),
        ({"origin": "nowhere.pdb"}, "from=nowhere.pdb"),
        ({"origin": "ca.pdb"}, "CA"),
        ({"origin": "text.pdb"}, "from=text.pdb"),
        ({"origin": "o.pdb", "ss": "HHH"}, "from=o.pdb has 12"),
    ],
)
def test_refused(settings, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_backbone("o.pdb", made(12))
    lines = (tmp_path / "o.pdb").read_text().splitlines(keepends=True)
    (tmp_path / "ca.pdb").write_text("".join(x for x in lines if x[12:16] == " CA "))
    (tmp_path / "text.pdb").write_text("no structure\n")
    with pytest.raises(InputError) as refused:
        request(**settings)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_structure_gives_its_chains(tmp_path):
    write_backbone(tmp_path / "o.cif", made(12))
    asked = request(origin=tmp_path / "o.cif", n=2)
    assert asked.chains == [(12,), (12,)]
    assert request(origin=made(7), ss="HHHHHHH", n=1).secondary.tolist() == [1] * 7
