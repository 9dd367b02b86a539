"""Structures that turn under the mouse, inside the page: models as text, a still picture, 3Dmol.js.

`Report.add_structure` puts views side by side, which turn together. The still picture stands in
until the viewer starts, where there is no script or WebGL, and on paper. The script is 3Dmol.js
(Rego and Koes, 2015); it lies in `vendor/` and is put into a page once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageColor

from sciffusion.errors import InputError
from sciffusion.viz.embed import data_uri
from sciffusion.viz.molecules import (
    CPK,
    SYMBOLS,
    Frame,
    check,
    ensemble_picture,
    frame,
    model_colours,
    visible,
)
from sciffusion.viz.proteins import CHAINS, FOLD, RAINBOW, Colouring, Trace, backbone_frame, draw
from sciffusion.viz.raster import Raster

HERE = Path(__file__).parent
LIBRARY = "3Dmol-2.5.5.min.js"
STILL = (640, 450)  # pixels of a still picture, and by it the shape of a stage
KINDS = ("sdf", "pdb", "xyz")

STYLE = """
.views h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
.views .row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr));
  gap: 1.2rem; }
.views.one { max-width: 44rem; }
.views figcaption { max-width: none; overflow-wrap: anywhere; }
.view .title { margin: 0 0 .3rem; font-size: .9rem; }
.view .title span { color: var(--soft); margin-left: .6em; }
.stage { position: relative; overflow: hidden; border: 1px solid var(--line); border-radius: 6px;
  background: var(--stage); }
.stage:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.stage img { width: 100%; padding: 0; border: 0; background: none; }
.stage canvas { cursor: grab; } .stage canvas:active { cursor: grabbing; }
.live .stage img { visibility: hidden; }
.views .bar, .views .hint { display: none; }
.live .bar { display: flex; gap: .8rem; align-items: center; margin-top: .3rem; }
.bar button { font: inherit; font-size: .85rem; min-width: 4.4em; padding: .1rem .5rem;
  color: var(--accent); background: none; border: 1px solid var(--line); border-radius: 4px;
  cursor: pointer; }
.live .bar input { flex: 1; min-width: 6rem; accent-color: var(--accent); }
.live .bar output { color: var(--soft); font-size: .9rem; min-width: 13em;
  font-variant-numeric: tabular-nums; }
.live .hint { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 2rem;
  max-width: none; margin: .3rem 0 0; font-size: .85rem; color: var(--soft); }
.hint input { accent-color: var(--accent); margin: 0 .4rem 0 0; }
@media print {
  .stage { outline: none !important; }
  .stage canvas, .views .bar, .views .hint { display: none !important; }
  .live .stage img { visibility: visible; }
}
"""

PLAY = '<button type="button">play</button>'
HELP = "drag to turn, double-click to reset, Ctrl + wheel to zoom; arrow keys, + - 0"


@dataclass(frozen=True)
class View:
    """One or several models in a frame.

    Attributes:
        models: the text of a file each.
        still: the picture that stands in; 640 x 450 pixels fit.
        kind: of the files: "sdf", "pdb" or "xyz".
        style: "sticks", "balls" (and sticks), "cartoon" or "trace" (sticks from CA to CA).
        colours: a colour a model, "#rrggbb": of its carbon, or of its whole chain; by element, or
            as `paint` says, where there are none.
        paint: of cartoons and traces: "secondary" structure, "rainbow" from N to C, or "chain".
        names: a few words a model, shown when it is picked.
        title, note: above the frame.
        hidden: atoms that are left out until they are asked for, counted from 0 in every model.
        overlay: begin with all models over each other, not with the first.
        movie: models are frames, shown one at a time, the last one at first; a button plays them.
        reach: half the width that is seen, in Angstrom about the origin; None fits the models.
    """

    models: Sequence[str]
    still: Image.Image | bytes
    kind: Literal["sdf", "pdb", "xyz"] = "sdf"
    style: Literal["sticks", "balls", "cartoon", "trace"] = "sticks"
    colours: Sequence[str] = ()
    names: Sequence[str] = ()
    title: str = ""
    note: str = ""
    hidden: Sequence[int] = ()
    overlay: bool = True
    reach: float | None = None
    paint: Colouring = "secondary"
    movie: bool = False

    def __post_init__(self) -> None:
        n = len(self.models)
        if not n:
            raise InputError("a view without models; give at least one")
        if self.kind not in KINDS:
            raise InputError(f"models of kind {self.kind!r}; give them as {', '.join(KINDS)}")
        for what in ("colours", "names"):
            if len(getattr(self, what)) not in (0, n):
                raise InputError(
                    f"{len(getattr(self, what))} {what} for {n} models; give one each or none"
                )


def conformer_view(
    coords: Float[np.ndarray, "k n 3"],
    z: Int[np.ndarray, " n"],
    bonds: Int[np.ndarray, "e 2"],
    orders: Int[np.ndarray, " e"] | None = None,
    names: Sequence[str] = (),
    title: str = "",
    note: str = "",
    seen: Frame | None = None,
) -> View:
    """Conformers of one molecule over each other, as they lie (see `molecules.superpose`).

    Many are drawn as sticks, one alone as balls and sticks.

    Args:
        coords: in Angstrom, atoms in one order.
        z: atomic numbers.
        bonds: pairs of atoms.
        orders: bond types of a molfile, 4 for aromatic; single by default.
        names, title, note: as in `View`.
        seen: how they lie in the picture; as they are seen best by default. Views with one frame
            show one scale and turn about one point.

    Raises:
        InputError: the arrays do not fit each other, or a coordinate is not finite.
    """
    coords, z, bonds = check(coords, z, bonds)
    shown = visible(z, bonds)
    seen = seen or frame(coords[:, shown])
    colours = model_colours(len(coords))
    style: Literal["balls", "sticks"] = "sticks" if len(coords) > 1 else "balls"
    still = ensemble_picture(coords, z, bonds, STILL, style, colours, aligned=True, view=seen)
    placed = seen.place(coords)
    return View(
        models=[molblock(x, z, bonds, orders) for x in placed],
        still=still,
        style=style,
        colours=colours,
        names=names,
        title=title,
        note=note,
        hidden=np.flatnonzero(~shown).tolist(),
        reach=reach_of(seen),
    )


def backbone_view(
    models: Sequence[str],
    style: Literal["cartoon", "trace"] = "cartoon",
    paint: Colouring = "rainbow",
    colours: Sequence[str] = (),
    names: Sequence[str] = (),
    title: str = "",
    note: str = "",
    reach: float | None = None,
    overlay: bool = True,
    movie: bool = False,
) -> View:
    """Backbones over each other, as they lie, or the frames of one.

    Args:
        models: the text of a PDB file each; HELIX and SHEET tell the still picture where bands lie.
        style: cartoons need N, CA, C and O. Traces keep CA alone, so that they take a quarter of
            the page's room; they fit frames that are noise yet.
        paint, colours, names, title, note, overlay, movie: as in `View`.
        reach: half the width that is seen, in Angstrom, so that views show one scale; fits the
            models, or the last frame, by default.

    Raises:
        InputError: a model without CA, or with coordinates that are not finite.
    """
    traces = [Trace.read(text) for text in models]
    shown = traces[-1:] if movie else traces if overlay else traces[:1]
    seen = backbone_frame(np.concatenate([trace.ca for trace in shown]))
    reach = reach or reach_of(seen)
    scale = STILL[0] / 2 / reach
    raster = Raster(*STILL, scale)
    chosen = colours[-1:] if movie else colours[: len(shown)]
    for k, trace in enumerate(shown):
        placed = replace(trace, ca=seen.place(trace.ca))
        rgb = np.array([ImageColor.getrgb(chosen[k])]) / 255 if chosen else trace.colours(paint)
        rgb = np.broadcast_to(rgb, trace.ca.shape)
        draw(raster, placed, rgb, sharp=paint != "rainbow")
    return View(
        models=[_placed(text, seen, style == "trace") for text in models],
        still=raster.image(),
        kind="pdb",
        style=style,
        colours=colours,
        names=names,
        title=title,
        note=note,
        overlay=overlay,
        reach=reach,
        paint=paint,
        movie=movie,
    )


def reach_of(seen: Frame) -> float:
    """Half the width, in Angstrom, of a stage that shows a whole frame."""
    return STILL[0] / 2 / seen.scale(*STILL)


def _placed(pdb: str, seen: Frame, alpha: bool) -> str:
    """A PDB text with its atoms as the eye sees them; CA alone if so wanted."""
    # at END the library forgets what HELIX and SHEET said
    lines = [s for s in pdb.splitlines() if not s.startswith("END")]
    rows = [i for i, s in enumerate(lines) if s.startswith(("ATOM", "HETATM"))]
    xyz = np.array([[float(lines[i][k : k + 8]) for k in (30, 38, 46)] for i in rows])
    dropped = set()
    for i, point in zip(rows, seen.place(xyz), strict=True):
        lines[i] = lines[i][:30] + "".join(f"{v:8.3f}" for v in point) + lines[i][54:]
        if alpha and lines[i][12:16] != " CA ":
            dropped.add(i)
    return "\n".join(s for i, s in enumerate(lines) if i not in dropped) + "\n"


def molblock(
    coords: Float[np.ndarray, "n 3"],
    z: Int[np.ndarray, " n"],
    bonds: Int[np.ndarray, "e 2"],
    orders: Int[np.ndarray, " e"] | None = None,
) -> str:
    """A molfile (V3000) of atoms in Angstrom and bonds, without charges."""
    orders = np.ones(len(bonds), int) if orders is None else orders
    lines = ["", "  sciffusion", "", "  0  0  0     0  0            999 V3000"]
    table = ["BEGIN CTAB", f"COUNTS {len(z)} {len(bonds)} 0 0 0", "BEGIN ATOM"]
    for i, (n, (x, y, w)) in enumerate(zip(z, coords, strict=True), 1):
        table.append(f"{i} {SYMBOLS[n]} {x:.3f} {y:.3f} {w:.3f} 0")
    table += ["END ATOM", "BEGIN BOND"]
    for i, ((a, b), order) in enumerate(zip(bonds, orders, strict=True), 1):
        table.append(f"{i} {order} {a + 1} {b + 1}")
    table += ["END BOND", "END CTAB"]
    return "\n".join([*lines, *(f"M  V30 {row}" for row in table), "M  END", ""])


def figure_html(views: Sequence[View], heading: str, caption: str) -> str:
    """Views side by side as a figure of the page, with texts above and below.

    Raises:
        InputError: there are none, or a still is not a picture.
    """
    if not views:
        raise InputError("a figure without views; give at least one")
    data = [
        {
            "kind": view.kind,
            "style": view.style,
            "models": list(view.models),
            "colours": list(view.colours),
            "names": list(view.names),
            "hidden": list(view.hidden),
            "palette": CPK,
            "paint": view.paint,
            "stops": {"secondary": FOLD, "rainbow": RAINBOW, "chain": CHAINS}[view.paint],
            "reach": view.reach,
        }
        for view in views
    ]
    switch = '<label><input type="checkbox">hydrogens on carbon</label>'
    return (
        f'<figure class="views{" one" if len(views) == 1 else ""}">'
        + (f"<h3>{escape(heading)}</h3>" if heading else "")
        + f'<div class="row">{"".join(map(_panel, views))}</div><p class="hint">'
        + (switch if any(view.hidden for view in views) else "")
        + f"<span>{HELP}</span></p>"
        + (f"<figcaption>{escape(caption)}</figcaption>" if caption else "")
        # "<" would let a model's text end the script
        + '<script type="application/json">{}</script></figure>'.format(
            json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
        )
    )


@cache
def scripts() -> tuple[str, str]:
    """The library with its licence, and what sets up the views of a page."""
    vendor = HERE / "vendor"
    licence = (vendor / "LICENSE.txt").read_text("utf-8")
    library = (vendor / LIBRARY).read_text("utf-8")
    return f"/*!\n{licence}*/\n{library}", (HERE / "view3d.js").read_text("utf-8")


def _panel(view: View) -> str:
    last = len(view.models)
    first, begin = (1, last) if view.movie else (0, 0 if view.overlay else 1)
    name = escape(view.title or "structure", quote=True)
    note = f"<span>{escape(view.note)}</span>" if view.note else ""
    head = f'<p class="title"><b>{escape(view.title)}</b>{note}</p>' if view.title or note else ""
    slider = (
        f'<div class="bar">{PLAY if view.movie else ""}'
        f'<input type="range" min="{first}" max="{last}" value="{begin}" '
        f'aria-label="{name}: {"frame" if view.movie else "0 shows all models"}">'
        "<output></output></div>"
    )
    return (
        f'<div class="view">{head}'
        f'<div class="stage" tabindex="0" role="group" aria-label="{name}; {HELP}">'
        f'<img src="{data_uri(view.still)}" alt="{name}"></div>'
        f"{slider if last > 1 else ''}</div>"
    )
