"""Pictures of backbones from CA positions: bands, arrows and tubes as in `ribbon`, in colours.

Colours tell the way from N (blue) to C (red), the secondary structure, or the chain. What is not
joined to anything, such as noise, shows as dots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageColor

from sciffusion.errors import InputError
from sciffusion.viz.molecules import Frame, frame
from sciffusion.viz.raster import Raster
from sciffusion.viz.ribbon import HELIX, STRAND, ribbon

Colouring = Literal["rainbow", "secondary", "chain"]
RAINBOW = ("#3b5bc7", "#2a93c4", "#2fa98c", "#7fb43c", "#e0b12f", "#e0762e", "#c8323c")  # N to C
FOLD = ("#98a2ae", "#c95d7b", "#dfae3a")  # loop, helix, strand
CHAINS = ("#4f86b8", "#dd9b3c", "#2a9d94", "#c95d7b", "#8a63c7", "#8f9a3a", "#7d848c", "#b5651d")
JOINED = 5.0  # CA nearer than this to the next are joined, Angstrom; bonded ones lie 2.9 to 3.9 off
DOT = 0.7
ROOM = 0.9  # Angstrom that bands reach beyond what a molecule's atoms do


@dataclass(frozen=True)
class Trace:
    """What is drawn of a backbone.

    Attributes:
        ca: in Angstrom.
        codes: 0 loop, 1 helix, 2 strand of each residue.
        chain: the name of each residue's chain; those of a chain stand together.
    """

    ca: Float[np.ndarray, "l 3"]
    codes: Int[np.ndarray, " l"]
    chain: np.ndarray

    @staticmethod
    def of(
        ca: Float[np.ndarray, "l 3"],
        codes: Int[np.ndarray, " l"] | None = None,
        chain: np.ndarray | None = None,
    ) -> Trace:
        """A trace; all loop and one chain by default.

        Raises:
            InputError: they do not fit each other, there is no residue, or one is not finite.
        """
        ca = np.asarray(ca, np.float64)
        codes = np.zeros(len(ca), int) if codes is None else np.asarray(codes)
        chain = np.full(len(ca), "A") if chain is None else np.asarray(chain)
        if not len(ca) or ca.shape[1:] != (3,) or {len(codes), len(chain)} != {len(ca)}:
            raise InputError(
                f"CA of shape {ca.shape} with {len(codes)} codes and {len(chain)} names of chains "
                "cannot be drawn; give (residues, 3), and one each"
            )
        if not np.isin(codes, (0, HELIX, STRAND)).all():
            raise InputError("codes of secondary structure are 0, 1 and 2: loop, helix, strand")
        if not np.isfinite(ca).all():
            raise InputError("coordinates that are not finite cannot be drawn; leave them out")
        return Trace(ca, codes, chain)

    @staticmethod
    def read(pdb: str) -> Trace:
        """The trace that a PDB text tells: CA, and the ranges of its HELIX and SHEET records.

        Raises:
            InputError: it has no CA.
        """
        lines = pdb.splitlines()
        atoms = [s for s in lines if s.startswith("ATOM") and s[12:16] == " CA "]
        if not atoms:
            raise InputError("a PDB text without CA atoms cannot be drawn as a backbone")
        row = {s[21:27]: i for i, s in enumerate(atoms)}  # chain, number, insertion code
        codes = np.zeros(len(atoms), int)
        for s in lines:
            if s.startswith("HELIX"):
                ends, code = (s[19] + s[21:26], s[31] + s[33:38]), HELIX
            elif s.startswith("SHEET"):
                ends, code = (s[21:27], s[32:38]), STRAND
            else:
                continue
            if all(end in row for end in ends):
                codes[row[ends[0]] : row[ends[1]] + 1] = code
        ca = [[float(s[k : k + 8]) for k in (30, 38, 46)] for s in atoms]
        return Trace.of(np.array(ca), codes, np.array([s[21] for s in atoms]))

    def colours(self, how: Colouring = "rainbow") -> Float[np.ndarray, "l 3"]:
        """RGB of each residue, in 0..1; a rainbow runs through each chain."""
        if how == "secondary":
            return _rgb([FOLD[code] for code in self.codes.tolist()])
        names = dict.fromkeys(self.chain.tolist())
        if how == "chain":
            return _rgb([CHAINS[list(names).index(c) % len(CHAINS)] for c in self.chain.tolist()])
        place = np.concatenate(
            [np.linspace(0, len(RAINBOW) - 1, (self.chain == name).sum()) for name in names]
        )
        return _between(place, _rgb(RAINBOW))


def backbone_frame(ca: Float[np.ndarray, "*k l 3"]) -> Frame:
    """The frame in which backbones are seen best, with room for their bands."""
    seen = frame(ca)
    across, up = seen.extent
    return replace(seen, extent=(across + ROOM, up + ROOM), radius=seen.radius + ROOM)


def draw(raster: Raster, trace: Trace, colours: Float[np.ndarray, "l 3"], sharp: bool) -> None:
    """Draw a backbone as it lies.

    Args:
        colours: RGB of each residue.
        sharp: colours change between residues, not evenly along them.
    """
    for piece in _pieces(trace):
        if piece.stop - piece.start == 1:
            raster.sphere(trace.ca[piece.start], DOT, colours[piece.start])
            continue
        surface = ribbon(trace.ca[piece], trace.codes[piece])
        place = np.round(surface.place) if sharp else surface.place
        paint = _between(place, colours[piece])
        raster.mesh(surface.points, surface.normals, paint, surface.faces)


def backbone_picture(
    ca: Float[np.ndarray, "l 3"],
    codes: Int[np.ndarray, " l"] | None = None,
    chain: np.ndarray | None = None,
    size: tuple[int, int] = (300, 260),
    colour: Colouring = "rainbow",
    view: Frame | None = None,
    scale: float | None = None,
) -> Image.Image:
    """A backbone on a transparent ground; `grid.picture_grid` puts several on a sheet.

    Args:
        ca: in Angstrom.
        codes: 0 loop, 1 helix, 2 strand of each residue; all loop by default.
        chain: of each residue; one chain by default.
        size: width and height in pixels.
        colour: "rainbow" from N to C of each chain, "secondary" or "chain".
        view: how it lies in the picture; as it is seen best by default.
        scale: pixels an Angstrom; by default it fills the picture.

    Raises:
        InputError: as for `Trace.of`.
    """
    trace = Trace.of(ca, codes, chain)
    view = view or backbone_frame(trace.ca)
    raster = Raster(*size, scale or view.scale(*size))
    placed = replace(trace, ca=view.place(trace.ca))
    draw(raster, placed, trace.colours(colour), sharp=colour != "rainbow")
    return raster.image()


def _pieces(trace: Trace) -> list[slice]:
    """Rows that are joined."""
    apart = np.linalg.norm(trace.ca[1:] - trace.ca[:-1], axis=-1) > JOINED
    fresh = apart | (trace.chain[1:] != trace.chain[:-1])
    edges = [0, *(np.flatnonzero(fresh) + 1).tolist(), len(trace.ca)]
    return [slice(a, b) for a, b in pairwise(edges)]


def _rgb(colours: Sequence[str]) -> Float[np.ndarray, "n 3"]:
    return np.array([ImageColor.getrgb(c) for c in colours]) / 255


def _between(
    place: Float[np.ndarray, " n"], colours: Float[np.ndarray, "k 3"]
) -> Float[np.ndarray, "n 3"]:
    """Colours at places in a row of them."""
    return np.stack([np.interp(place, range(len(colours)), c) for c in colours.T], -1)
