"""The surface of a cartoon: a smooth curve through CA, swept by a profile that tells the structure.

Loops are tubes, helices flat bands and strands arrows (Richardson 1981). The band lies across the
direction in which the trace bends, the peptide plane's side as far as CA alone tells it (Carson and
Bugg 1986); no other atom is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

LOOP, HELIX, STRAND = range(3)
STEPS = 8  # of the curve from one CA to the next
ROUND = 12  # points around the profile
WIDTH = np.array([0.34, 1.35, 1.3])  # half the width of loop, helix, strand, Angstrom
THICK = np.array([0.34, 0.30, 0.30])
POWER = np.array([2.0, 3.0, 4.0])  # of the superellipse |x/w|^p + |y/t|^p = 1: round to square
HEAD, POINT = 2.2, 1.6  # half the width of an arrow's head, and its length in residues
SOFT = 0.28  # residues over which one profile becomes another


@dataclass(frozen=True)
class Surface:
    """Triangles with normals.

    Attributes:
        points, normals: (V, 3) in Angstrom.
        faces: (F, 3) rows of points.
        place: (V,) where along the trace each lies, in residues from 0.
    """

    points: Float[np.ndarray, "v 3"]
    normals: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    place: Float[np.ndarray, " v"]


def ribbon(ca: Float[np.ndarray, "l 3"], codes: Int[np.ndarray, " l"]) -> Surface:
    """The closed surface about an unbroken trace.

    Args:
        ca: at least two CA in a row, Angstrom.
        codes: 0 loop, 1 helix, 2 strand of each.
    """
    length = len(ca)
    at = np.linspace(0, length - 1, (length - 1) * STEPS + 1)
    curve = CubicSpline(np.arange(length), _flattened(ca, codes), bc_type="natural")
    centre, tangent = curve(at), _unit(curve(at, 1))
    across = CubicSpline(np.arange(length), _sides(ca))(at)
    across = _unit(across - (across * tangent).sum(-1, keepdims=True) * tangent)
    up = np.cross(tangent, across)
    wide, thick, power = (v[:, None] for v in _profile(at, codes))

    turn = np.arange(ROUND) / ROUND * 2 * np.pi
    cos, sin = np.cos(turn), np.sin(turn)
    x, y = (wide * _bent(cos, 2 / power), thick * _bent(sin, 2 / power))
    nx, ny = (_bent(cos, 2 - 2 / power) / wide, _bent(sin, 2 - 2 / power) / thick)

    def swept(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a[..., None] * across[:, None] + b[..., None] * up[:, None]

    points, normals = centre[:, None] + swept(x, y), _unit(swept(nx, ny))
    rows = np.arange(len(at) - 1)[:, None] * ROUND
    here, there = np.arange(ROUND), (np.arange(ROUND) + 1) % ROUND
    a, b, c, d = rows + here, rows + there, rows + ROUND + here, rows + ROUND + there
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)]).reshape(-1, 3)
    points, normals, place = points.reshape(-1, 3), normals.reshape(-1, 3), at.repeat(ROUND)
    for end, sign in ((0, -1), (len(at) - 1, 1)):  # flat caps
        ring, middle = end * ROUND + here, len(points)
        faces = np.concatenate(
            [faces, np.stack([np.full(ROUND, middle + ROUND), middle + here, middle + there], -1)]
        )
        points = np.concatenate([points, points[ring], centre[end : end + 1]])
        normals = np.concatenate([normals, np.repeat(sign * tangent[end : end + 1], ROUND + 1, 0)])
        place = np.concatenate([place, np.full(ROUND + 1, at[end])])
    return Surface(points, normals, faces, place)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def _bent(v: np.ndarray, power: np.ndarray) -> np.ndarray:
    """|v|^power with the sign of v."""
    return np.sign(v) * np.abs(v) ** power


def _flattened(ca: np.ndarray, codes: np.ndarray) -> Float[np.ndarray, "l 3"]:
    """The trace with the pleat of its strands taken out: each CA halfway to its neighbours."""
    smooth = ca.astype(np.float64)
    inner = np.flatnonzero(codes[1:-1] == STRAND) + 1
    for _ in range(2):
        smooth[inner] = (smooth[inner - 1] + 2 * smooth[inner] + smooth[inner + 1]) / 4
    return smooth


def _sides(ca: np.ndarray) -> Float[np.ndarray, "l 3"]:
    """At each CA the direction across the band; those of neighbours point the same way."""
    sides = np.zeros((len(ca), 3))
    if len(ca) > 2:
        sides[1:-1] = _unit(np.cross(ca[1:-1] - ca[:-2], ca[2:] - ca[1:-1]))
        sides[0], sides[-1] = sides[1], sides[-2]
    if not np.linalg.norm(sides, axis=-1).all():  # two residues, or a straight line
        some = np.eye(3)[np.abs(ca[-1] - ca[0]).argmin()]
        sides[np.linalg.norm(sides, axis=-1) == 0] = some
    agree = np.where((sides[1:] * sides[:-1]).sum(-1) < 0, -1.0, 1.0)
    sides[1:] *= np.cumprod(agree)[:, None]
    return gaussian_filter1d(sides, 0.8, axis=0, mode="nearest")


def _profile(at: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(half width, half thickness, power) along the curve."""
    kind = codes[np.minimum(np.round(at).astype(int), len(codes) - 1)]
    wide, thick, power = (
        gaussian_filter1d(table[kind], SOFT * STEPS, mode="nearest")
        for table in (WIDTH, THICK, POWER)
    )
    edges = np.flatnonzero(np.diff(np.r_[False, codes == STRAND, False]))
    for first, stop in edges.reshape(-1, 2):
        tip = stop - 0.5 if stop < len(codes) else stop - 1.0
        head = (at > max(tip - POINT, first)) & (at <= tip)
        wide[head] = WIDTH[LOOP] + (HEAD - WIDTH[LOOP]) * (tip - at[head]) / POINT
        power[head] = POWER[STRAND]
        after = (at > tip) & (at < tip + 1)
        wide[after], thick[after] = WIDTH[LOOP], THICK[LOOP]
    return wide, thick, power
