"""A report that is one HTML file: pictures inside it, nothing fetched, fit for print.

A content security policy forbids the page every request, so a figure that pointed elsewhere
would show as broken at once. Scripts move the slider of a denoising trajectory and, where there
are structures, turn them; without script, and on paper, still pictures stand in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Protocol

from PIL import Image

from sciffusion.errors import InputError
from sciffusion.viz import view3d
from sciffusion.viz.embed import data_uri
from sciffusion.viz.view3d import View
from sciffusion.viz.write import write_whole

NUMERIC = frozenset({"value", "n", "floor"})

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
{scripts}
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1f24; --soft: #5d6570; --paper: #ffffff;
  --line: #d8dce2; --wash: #f4f6f8; --stage: #ffffff; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #a0a8b3; --paper: #15181c;
  --line: #363c44; --wash: #1f242a; --stage: #1f242a; --accent: #62b5e5; } }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 74rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1.5rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .7rem; padding-bottom: .25rem;
  border-bottom: 1px solid var(--line); }
p { max-width: 44rem; margin: .6rem 0; white-space: pre-line; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td:first-child, td.tight { white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.note { min-width: 14rem; color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; margin: 1rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1.2rem 0; }
[hidden] { display: none !important; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; padding: .5rem;
  box-sizing: border-box; border: 1px solid var(--line); border-radius: 6px; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .4rem; max-width: 44rem; }
.ends { display: flex; flex-wrap: wrap; gap: 1rem; } .ends figure { margin: 0; flex: 1 1 12rem; }
.player { display: none; }
.player.ready { display: inline-block; max-width: 100%; } .player.ready + .ends { display: none; }
.player .bar { display: flex; gap: .8rem; align-items: center; margin-top: .4rem; }
.player input { flex: 1; min-width: 8rem; accent-color: var(--accent); }
.player output { color: var(--soft); font-size: .9rem; min-width: 6.5em; text-align: right;
  font-variant-numeric: tabular-nums; }
details { margin: 1rem 0; border: 1px solid var(--line); border-radius: 6px;
  background: var(--wash); }
summary { padding: .5rem .8rem; cursor: pointer; color: var(--accent); }
pre { margin: 0; padding: .2rem .9rem .8rem; overflow-x: auto; font: .85rem/1.5 ui-monospace,
  "DejaVu Sans Mono", monospace; }
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --line: #bbb;
    --wash: #fff; --stage: #fff; }
  main { max-width: none; padding: 0; } h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; } pre { white-space: pre-wrap; }
  .player.ready { display: none; } .player.ready + .ends { display: flex; }
}
"""

SCRIPT = """
for (const player of document.querySelectorAll(".player")) {
  const frames = player.querySelectorAll("img");
  const slider = player.querySelector("input");
  const place = player.querySelector("output");
  const show = () => {
    frames.forEach((frame, i) => { frame.hidden = i !== slider.valueAsNumber; });
    place.textContent = `${slider.valueAsNumber + 1} of ${frames.length}`;
  };
  slider.addEventListener("input", show);
  show();
  player.classList.add("ready");
}
"""


class TableLike(Protocol):
    """What a report asks of a table: `sciffusion.metrics.table.Table` fits."""

    title: str

    def text(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headings, and rows of as many cells."""


class Report:
    """Builds the page from top to bottom; each `add_` returns the report itself.

    Args:
        title: of the page.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = []
        self._structures = False

    def add_section(self, heading: str) -> Report:
        """Begin a section."""
        return self._add(f"<h2>{escape(heading)}</h2>")

    def add_text(self, text: str) -> Report:
        """Plain text; an empty line parts paragraphs."""
        return self._add(*(f"<p>{escape(part.strip())}</p>" for part in text.split("\n\n")))

    def add_table(self, table: TableLike) -> Report:
        """A table with its title as caption."""
        head, rows = table.text()
        kinds = [_cell_kind(name) for name in head]
        top = "".join(
            f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, head, strict=True)
        )
        body = "\n".join(
            "<tr>"
            + "".join(f"<td{kind}>{escape(c)}</td>" for kind, c in zip(kinds, row, strict=True))
            + "</tr>"
            for row in rows
        )
        return self._add(
            f'<div class="scroll"><table><caption>{escape(table.title)}</caption>'
            f"<thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
        )

    def add_figure(self, picture: bytes | Image.Image, caption: str = "") -> Report:
        """A picture: a PIL image, or the bytes of a PNG, JPEG or SVG file.

        Raises:
            InputError: the bytes are of another kind.
        """
        return self._add(_figure(picture, caption))

    def add_frames(self, frames: Sequence[bytes | Image.Image], caption: str = "") -> Report:
        """A trajectory under a slider, which begins at the last frame.

        Raises:
            InputError: there are no frames, or one is not a picture.
        """
        if not frames:
            raise InputError("a trajectory without frames; record at least one step")
        last = len(frames) - 1
        images = "".join(
            f'<img src="{data_uri(frame)}" alt="frame {i + 1}"{"" if i == last else " hidden"}>'
            for i, frame in enumerate(frames)
        )
        slider = (
            f'<div class="bar"><input type="range" min="0" max="{last}" value="{last}" '
            'aria-label="frame"><output></output></div>'
        )
        ends = _figure(frames[0], "first") + _figure(frames[-1], "last")
        return self._add(
            f'<figure><div class="player">{images}{slider}</div><div class="ends">{ends}</div>'
            f"{_caption(caption)}</figure>"
        )

    def add_structure(self, *views: View, heading: str = "", caption: str = "") -> Report:
        """Structures side by side, which turn together under the mouse.

        Args:
            views: `view3d.conformer_view` makes one of coordinates.
            heading, caption: above and below them.

        Raises:
            InputError: there are no views, or the still picture of one is none.
        """
        figure = view3d.figure_html(views, heading, caption)
        self._structures = True
        return self._add(figure)

    def add_code(self, code: str, summary: str = "configuration") -> Report:
        """Text in fixed width, folded away under a summary."""
        return self._add(
            f"<details><summary>{escape(summary)}</summary>"
            f"<pre><code>{escape(code)}</code></pre></details>"
        )

    def add_keyvalues(self, pairs: Mapping[str, object]) -> Report:
        """Names with their values, one a line."""
        items = "".join(
            f"<dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd>" for k, v in pairs.items()
        )
        return self._add(f"<dl>{items}</dl>")

    def html(self) -> str:
        """The whole page."""
        style, scripts = STYLE, [SCRIPT]
        if self._structures:
            style, scripts = style + view3d.STYLE, [*scripts, *view3d.scripts()]
        return PAGE.format(
            title=escape(self.title),
            style=style,
            body="\n".join(self._parts),
            scripts="\n".join(f"<script>{script}</script>" for script in scripts),
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page, whole or not at all.

        Raises:
            InputError: the path is a directory or cannot be written.
        """
        # a lone surrogate (a file name in another encoding) must not cost the whole report
        return write_whole(self.html().encode("utf-8", "replace"), path)

    def _add(self, *parts: str) -> Report:
        self._parts += parts
        return self


def _cell_kind(heading: str) -> str:
    if heading in NUMERIC:
        return ' class="number"'
    return ' class="note"' if heading == "note" else ' class="tight"'


def _figure(picture: bytes | Image.Image, caption: str) -> str:
    alt = escape(caption or "figure", quote=True)
    return f'<figure><img src="{data_uri(picture)}" alt="{alt}">{_caption(caption)}</figure>'


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>" if text else ""
