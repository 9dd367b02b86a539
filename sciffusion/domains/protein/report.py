"""Backbones in a report: samples beside real chains of like length, and a denoising movie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image

from sciffusion.core.geometry import kabsch
from sciffusion.domains.protein.backbone import CA, CHAIN_NAMES, Backbone
from sciffusion.domains.protein.layout import codes_of
from sciffusion.domains.protein.secondary import HELIX, STRAND
from sciffusion.domains.protein.writers import pdb_text
from sciffusion.errors import InputError
from sciffusion.viz.grid import picture_grid
from sciffusion.viz.molecules import model_colours
from sciffusion.viz.proteins import backbone_frame, backbone_picture
from sciffusion.viz.report import Report
from sciffusion.viz.view3d import View, backbone_view, reach_of

FRAMES = 40  # of a movie at most
WIDEST = 1.2  # of a frame's radius of gyration to the last one's; wider ones are drawn smaller
ORIGIN = "#8b929b"
COLUMNS = 4

TEXT = (
    "Colours run from blue at the N-terminus to red at the C-terminus. Bands are helices, arrows "
    "strands, both read off the coordinates by P-SEA."
)
MOVIE = (
    "From noise to a fold. Each frame lies upon the next as well as it can; those that are wider "
    f"than {WIDEST} times the fold are drawn smaller."
)


def sections(
    page: Report,
    samples: Sequence[Backbone],
    references: Sequence[Backbone] = (),
    trajectory: Sequence[Float[np.ndarray, "l 4 3"]] | None = None,
    origin: Backbone | None = None,
    shown: int = 4,
    pictures: int = 12,
) -> Report:
    """Add backbones to a page: a sheet of samples, some of them to turn, and a movie.

    Args:
        page: what to add to.
        samples: generated; those with coordinates that are not finite are told, not shown.
        references: real chains; each sample to turn has one of nearest length beside it.
        trajectory: frames of the first sample from noise to data, in Angstrom.
        origin: what the samples are variations of; they are laid over it.
        shown: samples to turn at most, the first ones.
        pictures: samples on the sheet at most, the first ones.
    """
    good = [s for s in samples if len(s) and np.isfinite(s.coords).all()]
    page.add_section("Backbones").add_text(TEXT)
    if len(good) < len(samples):
        page.add_text(f"{len(samples) - len(good)} of {len(samples)} samples cannot be shown: "
                      "they are empty or have coordinates that are not finite.")  # fmt: skip
    if good:
        some = f"{min(pictures, len(good))} of " if len(good) > pictures else ""
        page.add_figure(sheet(good[:pictures]), f"{some}{len(good)} samples, name and length.")
    if origin is not None and good:
        page.add_structure(variation_view(good, origin), heading="Variations")
    for views in pairs(good[:shown], references):
        page.add_structure(*views)
    if trajectory is not None and (views := movie(trajectory, good[0] if good else None)):
        page.add_section("Denoising").add_structure(*views, caption=MOVIE)
    return page


def sheet(backbones: Sequence[Backbone]) -> Image.Image:
    """Pictures of backbones with their names and lengths."""
    drawn = [backbone_picture(b.coords[:, CA], codes_of(b), b.chain) for b in backbones]
    labels = [f"{b.name or f'sample {k}'}, {len(b)}" for k, b in enumerate(backbones, 1)]
    return picture_grid(drawn, min(COLUMNS, len(drawn)), labels)


def pairs(samples: Sequence[Backbone], references: Sequence[Backbone] = ()) -> list[list[View]]:
    """Each sample beside the reference of nearest length, at one scale; none comes twice."""
    left = [r for r in references if len(r) and np.isfinite(r.coords).all()]
    found = []
    for k, sample in enumerate(samples, 1):
        titles, shown = [sample.name or f"Sample {k}"], [sample]
        if left:
            apart = [abs(len(r) - len(sample)) for r in left]
            shown.append(left.pop(apart.index(min(apart))))
            titles.append(f"Real: {shown[1].name or 'a chain'}")
        reach = max(reach_of(backbone_frame(b.coords[:, CA])) for b in shown)
        found.append([_cartoon(b, t, reach) for b, t in zip(shown, titles, strict=True)])
    return found


def variation_view(samples: Sequence[Backbone], origin: Backbone) -> View:
    """Samples laid over what they are variations of, which is grey.

    Raises:
        InputError: a sample of another length.
    """
    other = [len(s) for s in samples if len(s) != len(origin)]
    if other:
        raise InputError(
            f"a sample of {other[0]} residues is no variation of {origin.name or 'a backbone'}, "
            f"which has {len(origin)}; show it without an origin"
        )
    laid = [replace(s, coords=_onto(s.coords, origin.coords)) for s in samples]
    apart = [np.sqrt(((s.coords - origin.coords)[:, CA] ** 2).sum(-1).mean()) for s in laid]
    middle = origin.coords.mean((0, 1))
    return backbone_view(
        [_text(b, codes_of(b), middle) for b in (origin, *laid)],
        colours=[ORIGIN, *model_colours(max(len(laid), 2))[: len(laid)]],
        names=["origin", *(f"{d:.1f} Å from it" for d in apart)],
        title="Variations over their origin",
    )


def movie(
    trajectory: Sequence[Float[np.ndarray, "l 4 3"]], sample: Backbone | None = None
) -> list[View]:
    """Frames as traces under a slider with a button to play them, beside the end as a cartoon.

    Args:
        trajectory: from noise to data, in Angstrom; frames that are not finite are left out.
        sample: whose frames they are, for names of chains; one chain where it has another length.
    """
    good = [np.asarray(x, np.float64) for x in trajectory if np.isfinite(x).all()]
    if not good:
        return []
    rows = np.unique(np.linspace(0, len(good) - 1, min(FRAMES, len(good))).round().astype(int))
    frames = [good[rows[-1]] - good[rows[-1]].mean((0, 1))]
    widest = WIDEST * _radius(frames[0])
    for x in (good[k] for k in rows[-2::-1]):
        x = x * min(1, widest / max(_radius(x), 1e-9))
        frames.insert(0, _onto(x, frames[0]))
    whose = sample if sample is not None and len(sample) == len(good[0]) else Backbone.of(good[0])
    last = replace(whose, coords=frames[-1])
    codes = codes_of(last)
    names = [f"step {k} of {len(good) - 1}" for k in rows]
    texts = [_text(replace(whose, coords=x), codes) for x in frames]
    trace = backbone_view(texts, "trace", names=names, title="Denoising", movie=True)
    return [trace, _cartoon(last, "Its end", trace.reach)]


def _cartoon(backbone: Backbone, title: str, reach: float | None) -> View:
    codes = codes_of(backbone)
    helix, strand = ((codes == kind).mean() for kind in (HELIX, STRAND))
    note = f"{len(backbone)} residues, {helix:.0%} helix, {strand:.0%} strand"
    text = _text(backbone, codes, backbone.coords.mean((0, 1)))
    return backbone_view([text], title=title, note=note, reach=reach)


def _text(
    backbone: Backbone,
    codes: Int[np.ndarray, " l"],
    middle: Float[np.ndarray, " 3"] | float = 0.0,
) -> str:
    """As PDB about a place, with names of chains and numbers that fit its columns."""
    names = dict(zip(backbone.chains, cycle(CHAIN_NAMES), strict=False))
    shown = replace(
        backbone,
        coords=backbone.coords - middle,
        chain=np.array([names[c] for c in backbone.chain.tolist()]),
        number=backbone.number - backbone.number.min() + 1,
        name="",
    )
    return pdb_text(shown, secondary=codes)


def _onto(x: Float[np.ndarray, "l 4 3"], y: Float[np.ndarray, "l 4 3"]) -> np.ndarray:
    """x moved rigidly onto y."""
    a, b = (torch.from_numpy(np.asarray(v, np.float64))[None] for v in (x, y))
    moved: np.ndarray = kabsch(a, b)[0].numpy()
    return moved


def _radius(x: Float[np.ndarray, "l 4 3"]) -> float:
    """Of gyration."""
    return float(np.sqrt(((x - x.mean((0, 1))) ** 2).sum(-1).mean()))
