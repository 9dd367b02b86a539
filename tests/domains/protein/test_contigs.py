"""Contigs: what is read is what is written, lengths fit, errors name the character."""

from collections import Counter
from itertools import product

import numpy as np
import pytest

from sciffusion.domains.protein.contigs import (
    Fixed,
    Free,
    draw_lengths,
    parse_contig,
    parse_total,
)
from sciffusion.errors import InputError

CONTIGS = {
    "10-40/A163-181/10-40": (39, 99),
    "A1-150/0 70-100": (220, 250),
    "0-30/A119-140/15/A63-82": (57, 87),
    "5-15/A121-125@A/10-20/B110-114@B/5": (30, 50),
    "A-3-4/2": (10, 10),
    "3/b7-7/0 B7-9/1-2/0 AA5-6": (10, 11),
}


@pytest.mark.parametrize("text", CONTIGS)
def test_round_trip(text):
    contig = parse_contig(text)
    assert str(contig) == text
    assert str(parse_contig(str(contig))) == text
    assert contig.range == CONTIGS[text]


def test_other_ways_to_write_it():
    for text, same in {
        "[10-40/A163-181/10-40]": "10-40/A163-181/10-40",  # as in RFdiffusion's command lines
        "['5/A38/5']": "5/A38-38/5",
        "  5/A38-38/5 ": "5/A38-38/5",
        "A1-5 7": "A1-5/0 7",
        "7-7/A1-5": "7/A1-5",
    }.items():
        assert str(parse_contig(text)) == same


def test_parts():
    contig = parse_contig("5/A2-4@x/1-3/0 B7@y/2")
    assert [len(c) for c in contig.chains] == [3, 2]
    assert contig.parts[0] == Free(5, 5)
    part = contig.fixed[0]
    assert (part.chain, part.first, part.last, part.group, len(part)) == ("A", 2, 4, "x", 3)
    assert contig.text[slice(*part.span)] == "A2-4@x"
    assert contig.groups == ["x", "y"]
    assert all(p.group == "A" for p in parse_contig("A2-4/5/A9").fixed)
    assert isinstance(contig.parts[3], Fixed)


@pytest.mark.parametrize(
    ("text", "place", "at", "says"),
    [
        ("", 1, "", "empty"),
        ("   ", 1, "", "empty"),
        ("10-40/A181-163/10", 7, "A181-163", "write A163-181"),
        ("40-10/A3", 1, "40-10", "write 10-40"),
        ("5/A3-9/2/A9-12", 10, "A9-12", "overlaps A3-9"),
        ("5/A3-9/2/A5", 10, "A5", "overlaps A3-9"),
        ("A100A-105/3", 5, "A", "insertion code"),
        ("3/A100-105B", 11, "B", "insertion code"),
        ("10-40//A3", 7, "", "empty part"),
        ("10-40/A3/", 10, "", "empty part"),
        ("10-40/A163-181,5", 15, ",5", "cannot be read"),
        ("10-40/A163-", 11, "-", "cannot be read"),
        ("10-40/A", 7, "A", "cannot be read"),
        ("5/*/A3", 3, "*", "cannot be read"),
        ("5-9@B/A3", 4, "@B", "cannot be read"),
        ("0/A3", 1, "0", "no residues"),
        ("A3/0", 4, "0", "no residues"),
        ("10-40", 1, "10-40", "no part of it is of the motif"),
    ],
)
def test_errors_name_the_character(text, place, at, says):
    with pytest.raises(InputError) as refused:
        parse_contig(text)
    line = str(refused.value)
    assert f"at character {place}" + (f" ({at})" if at else ":") in line
    assert says in line
    assert "\n" not in line


def test_totals():
    assert parse_total("116") == parse_total(116) == (116, 116)
    assert parse_total("50-75") == (50, 75)
    for wrong in ("", "x", "75-50", "0", "-5", "1.5"):
        with pytest.raises(InputError, match="total="):
            parse_total(wrong)
    contig = parse_contig("10-40/A163-181/10-40")
    assert contig.fit(None) == (39, 99)
    assert contig.fit((20, 50)) == (39, 50)
    for total in ((100, 120), (10, 38)):
        with pytest.raises(InputError, match="make 39-99 residues"):
            contig.fit(total)


def test_a_wide_range_costs_what_its_total_does():
    assert draw_lengths([(1, 10**8), (5, 5)], (60, 60), [0.5, 0.5]) == [55, 5]


@pytest.mark.parametrize("total", [(4, 4), (3, 5), (0, 99), (7, 7), (1, 1)])
def test_lengths_are_uniform_among_those_that_fit(total):
    """As by drawing each range by itself again until the sum fits."""
    ranges = [(0, 3), (1, 2), (0, 2)]
    every = [
        v for v in product(*(range(a, b + 1) for a, b in ranges)) if total[0] <= sum(v) <= total[1]
    ]
    u = np.random.default_rng(0).random((6000, 3))
    count = Counter(tuple(draw_lengths(ranges, total, row)) for row in u)
    assert set(count) == set(every)
    expected = len(u) / len(every)
    assert max(abs(v - expected) for v in count.values()) <= 5 * np.sqrt(expected)


def test_drawn_contigs_have_the_total():
    contig = parse_contig("0-95/A45-65/0-95/0 3-9")
    for u in np.random.default_rng(1).random((200, 4)):
        drawn = contig.drawn(u, (116, 116))
        assert drawn.range == (116, 116)
        assert [str(p) for p in drawn.fixed] == ["A45-65"]
