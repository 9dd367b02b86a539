import io
import json

import pytest
from rich.console import Console

from sciffusion.metrics.table import Row, Table, format_number

TABLE = Table(
    "Measures [of 10]",
    [
        Row("JS | angle", 0.0231, 0.01, 0.04, n=100, floor=0.0229, unit="bits"),
        Row("precision", float("nan"), better="higher", note="[bold]not markup[/bold]"),
    ],
)


def test_json_round_trip_keeps_figures_and_turns_nan_to_null():
    plain = json.loads(json.dumps(TABLE.to_dict(), allow_nan=False))
    assert Row(**plain["rows"][0]) == TABLE.rows[0]
    assert plain["rows"][1]["value"] is None
    assert plain["title"] == TABLE.title


def test_markdown_has_as_many_cells_in_each_line():
    lines = TABLE.markdown().splitlines()[2:]
    cells = [line.replace(r"\|", "").count("|") for line in lines]
    assert len(lines) == 4
    assert len(set(cells)) == 1


def test_terminal_shows_text_as_it_is():
    console = Console(file=io.StringIO(), width=200)
    console.print(TABLE.rich())
    shown = console.file.getvalue()
    for text in ("[of 10]", "JS | angle", "0.02310", "[bold]not markup[/bold]"):
        assert text in shown


def test_leaves_empty_columns_out():
    assert Table("t", [Row("a", 1.0)]).text()[0] == ("measure", "value", "better")


def test_finds_a_row_by_name():
    assert TABLE["JS | angle"].floor == 0.0229


@pytest.mark.parametrize("value", [0.0, 1.0, -12.3456, 0.00123456, 1.23456e-9, 987654.3, 1.5e12])
def test_numbers_read_back_to_four_digits(value):
    assert float(format_number(value)) == pytest.approx(value, rel=6e-4)
    assert len(format_number(value)) <= 10
