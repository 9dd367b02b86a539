"""A table of measures, each with its interval, its n and its floor: terminal, Markdown, JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rich import table as rich_table
from rich.markup import escape

COLUMNS = ("measure", "value", "95% interval", "n", "floor", "unit", "better", "note")


@dataclass(frozen=True)
class Row:
    """One measure.

    Args:
        name: what was measured.
        value: the figure.
        low: lower end of its interval, None where there is none.
        high: upper end.
        n: how many samples it was measured on.
        floor: what real data scores against real data at this n.
        unit: of value, low, high and floor; "" where there is none.
        better: which way is good.
        note: what a reader must know to read the figure.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    floor: float | None = None
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        """The row as text, one cell a column."""
        spread = ""
        if self.low is not None and self.high is not None:
            spread = f"{format_number(self.low)} to {format_number(self.high)}"
        return (
            self.name,
            format_number(self.value),
            spread,
            "" if self.n is None else str(self.n),
            "" if self.floor is None else format_number(self.floor),
            self.unit,
            self.better,
            self.note,
        )


@dataclass(frozen=True)
class Table:
    """Measures under a title; columns that no row fills are left out when shown."""

    title: str
    rows: Sequence[Row]

    def __getitem__(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    def text(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headings and rows as text, without the empty columns."""
        body = [row.cells() for row in self.rows]
        kept = [i for i in range(len(COLUMNS)) if i < 2 or any(cells[i] for cells in body)]
        return tuple(COLUMNS[i] for i in kept), [tuple(c[i] for i in kept) for c in body]

    def rich(self) -> rich_table.Table:
        """For `rich.print`."""
        head, body = self.text()
        table = rich_table.Table(title=escape(self.title))
        for name in head:
            right = name in ("value", "n", "floor")
            table.add_column(name, justify="right" if right else "left", no_wrap=name != "note")
        for cells in body:
            table.add_row(*(escape(cell) for cell in cells))
        return table

    def markdown(self) -> str:
        """A GitHub table under the title in bold."""
        head, body = self.text()
        lines = [head, ("---",) * len(head), *body]
        rows = ("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in lines)
        return f"**{self.title}**\n\n" + "\n".join(rows) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; a figure that is not finite becomes None."""
        rows = [{k: _finite_or_none(v) for k, v in asdict(row).items()} for row in self.rows]
        return {"title": self.title, "rows": rows}


def format_number(value: float) -> str:
    """Four significant digits, without an exponent where that stays short; a count as it is."""
    if math.isnan(value):
        return "-"
    if value == 0 or isinstance(value, int) or math.isinf(value):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3e}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
