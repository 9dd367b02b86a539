"""Still pictures of molecules from coordinates, atomic numbers and bonds: one, or an ensemble.

Ball and stick or sticks alone, in CPK colours; hydrogens on carbon are left out of all but the
smallest molecules, as a chemist draws them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageColor

from sciffusion.errors import InputError
from sciffusion.viz.raster import Raster

_TABLE = """* H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge
    As Se Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd
    Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm
    Bk Cf Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og"""
SYMBOLS = tuple(_TABLE.split())
"""By atomic number; 0 is an unknown atom."""

CPK = {
    "H": "#f2f2f2", "B": "#f4a38c", "C": "#7d848c", "N": "#3b63e0", "O": "#e3342f", "F": "#6fc24a",
    "Si": "#d9b382", "P": "#f08a1d", "S": "#e5c018", "Cl": "#2fb344", "Br": "#a0402f",
    "I": "#7d3fb0",
}  # fmt: skip
OTHER = "#c2689d"  # an element without a colour of its own
# of carbon, one conformer to the next; clear of the red of oxygen, seen on white and on black
SEQUENCE = ("#8a63c7", "#4f86b8", "#2a9d94", "#55ab4e", "#b9b42f", "#dd9b3c")

Style = Literal["balls", "sticks"]
STICK = {"balls": 0.13, "sticks": 0.17}  # radii in Angstrom
BALL = {"H": 0.24, "C": 0.36, "N": 0.36, "O": 0.36, "F": 0.34, "B": 0.36}
LARGE_BALL = 0.46
THIN = 0.62  # sticks of an ensemble, and of hydrogens, are thinner by this
SMALL = 3  # heavy atoms; molecules up to this size are drawn with all their hydrogens
MARGIN = 0.75  # Angstrom left free around the atoms' centres
LARGEST_SCALE = 1 / 7  # of a picture's height to an Angstrom: small molecules do not fill it
TURNED = 0.72  # of a picture's height is the most that any atom lies from its middle
CORE = 0.3  # Angstrom^2: atoms that stray by more than this hardly count in a superposition


@dataclass(frozen=True)
class Frame:
    """How molecules lie in a picture.

    Attributes:
        rotation: (3, 3) to be multiplied from the right: the longest axis across, the shortest
            towards the eye.
        centre: (3,) what lies in the middle, in Angstrom.
        extent: (2,) half the width and half the height that the atoms need, in Angstrom.
        radius: of the ball about the centre that holds them all.
    """

    rotation: Float[np.ndarray, "3 3"]
    centre: Float[np.ndarray, " 3"]
    extent: tuple[float, float]
    radius: float

    def scale(self, width: int, height: int) -> float:
        """Pixels an Angstrom at which everything fits, and little is cut off when it turns."""
        across, up = self.extent
        fits = min(width / 2 / across, height / 2 / up)
        return min(fits, height * TURNED / self.radius, height * LARGEST_SCALE)

    def place(self, coords: Float[np.ndarray, "*k n 3"]) -> Float[np.ndarray, "*k n 3"]:
        """Coordinates as the eye sees them: x to the right, y up, z towards it."""
        return (coords - self.centre) @ self.rotation


def frame(coords: Float[np.ndarray, "*k n 3"]) -> Frame:
    """The frame in which these points are seen best."""
    points = np.asarray(coords, np.float64).reshape(-1, 3)
    middle = points.mean(0)
    _, axes = np.linalg.eigh(np.cov((points - middle).T, bias=True))
    rotation = axes[:, ::-1].copy()  # the widest axis first
    if np.linalg.det(rotation) < 0:  # a rotation, never a mirror
        rotation[:, 2] *= -1
    turned = (points - middle) @ rotation
    low, high = turned.min(0), turned.max(0)
    half = (low + high) / 2
    across, up = ((high - low) / 2 + MARGIN)[:2].tolist()
    radius = float(np.linalg.norm(turned - half, axis=1).max()) + MARGIN
    return Frame(rotation, middle + half @ rotation.T, (across, up), radius)


def superpose(
    coords: Float[np.ndarray, "k n 3"], weights: Float[np.ndarray, " n"], rounds: int = 20
) -> Float[np.ndarray, "k n 3"]:
    """Conformers moved rigidly onto each other where they agree, centred.

    Each round fits all onto their mean (Kabsch) and then trusts an atom by how little it moves, so
    that a rigid core lies tight and loose ends fan out (Geman and McClure's weights).

    Args:
        coords: (K, N, 3) in Angstrom, atoms in one order.
        weights: (N,) of the atoms to fit on, zero for those to carry along: `z > 1`.
    """
    x = np.asarray(coords, np.float64)
    chosen = np.asarray(weights, np.float64)
    if not chosen.any():
        chosen = np.ones(x.shape[1])
    w, target = chosen, x[0]
    for _ in range(rounds if len(x) > 1 else 1):
        x = x - np.average(x, 1, w)[:, None]
        target = target - np.average(target, 0, w)
        u, _, vt = np.linalg.svd(np.einsum("kni,n,nj->kij", x, w, target))
        u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
        x = x @ u @ vt
        target = x.mean(0)
        spread = ((x - target) ** 2).sum(-1).mean(0)
        w = chosen / (spread + CORE) ** 2
    return x


def molecule_picture(
    coords: Float[np.ndarray, "n 3"],
    z: Int[np.ndarray, " n"],
    bonds: Int[np.ndarray, "e 2"],
    size: tuple[int, int] = (250, 220),
    style: Style = "balls",
) -> Image.Image:
    """One molecule on a transparent ground.

    Args:
        coords: in Angstrom.
        z: atomic numbers.
        bonds: pairs of atoms.
        size: width and height in pixels.
        style: balls and sticks, or sticks alone.

    Raises:
        InputError: coordinates that are not finite, or as many as there are atoms.
    """
    return ensemble_picture(np.asarray(coords)[None], z, bonds, size, style, aligned=True)


def ensemble_picture(
    coords: Float[np.ndarray, "k n 3"],
    z: Int[np.ndarray, " n"],
    bonds: Int[np.ndarray, "e 2"],
    size: tuple[int, int] = (480, 360),
    style: Style = "sticks",
    colours: Sequence[str] = (),
    aligned: bool = False,
    view: Frame | None = None,
) -> Image.Image:
    """Conformers of one molecule over each other, on a transparent ground.

    Args:
        coords: in Angstrom, atoms in one order.
        z, bonds, size, style: as for `molecule_picture`.
        colours: of each conformer's carbon; `model_colours` by default.
        aligned: they lie upon each other already.
        view: how they lie in the picture; as they are seen best by default.

    Raises:
        InputError: as for `molecule_picture`.
    """
    coords, z, bonds = check(coords, z, bonds)
    if not aligned:
        coords = superpose(coords, z > 1)
    shown = visible(z, bonds)
    view = view or frame(coords[:, shown])
    raster = Raster(*size, view.scale(*size))
    colours = colours or model_colours(len(coords))
    thin = THIN if len(coords) > 1 else 1.0
    for conformer, carbon in zip(view.place(coords), colours, strict=True):
        _draw(raster, conformer, z, bonds, shown, style, {**CPK, "C": carbon}, thin)
    return raster.image()


def model_colours(k: int) -> list[str]:
    """Carbon colours that tell k conformers apart, the first one the darkest; CPK for one alone."""
    if k == 1:
        return [CPK["C"]]
    stops = np.array([ImageColor.getrgb(c) for c in SEQUENCE])
    place = np.linspace(0, len(stops) - 1, k)
    rgb = [np.interp(place, range(len(stops)), channel) for channel in stops.T]
    return ["#{:02x}{:02x}{:02x}".format(*c) for c in np.stack(rgb, 1).round().astype(int)]


def visible(z: Int[np.ndarray, " n"], bonds: Int[np.ndarray, "e 2"]) -> Bool[np.ndarray, " n"]:
    """Atoms that are drawn: all but hydrogens on carbon, unless the molecule is small."""
    if (z > 1).sum() <= SMALL:
        return np.ones(len(z), bool)
    on_carbon = np.zeros(len(z), bool)
    for here, there in (bonds.T, bonds.T[::-1]):
        on_carbon[here[z[there] == 6]] = True
    return (z != 1) | ~on_carbon


def check(
    coords: np.ndarray, z: np.ndarray, bonds: np.ndarray
) -> tuple[Float[np.ndarray, "k n 3"], Int[np.ndarray, " n"], Int[np.ndarray, "e 2"]]:
    """The three as arrays that fit each other.

    Raises:
        InputError: they do not, or a coordinate is not finite.
    """
    coords = np.asarray(coords, np.float64)
    z, bonds = np.asarray(z).astype(int), np.asarray(bonds).astype(int).reshape(-1, 2)
    if coords.ndim != 3 or coords.shape[1:] != (len(z), 3) or coords.size == 0:
        raise InputError(
            f"coordinates of shape {coords.shape} for {len(z)} atoms cannot be drawn; give "
            "(atoms, 3) each, and at least one atom"
        )
    unknown = z[(z < 0) | (z >= len(SYMBOLS))]
    if unknown.size:
        raise InputError(f"an atomic number of {unknown[0]}; elements go from 1 to 118")
    if bonds.size and (bonds.min() < 0 or bonds.max() >= len(z)):
        raise InputError(f"a bond names none of the {len(z)} atoms; count them from 0")
    if not np.isfinite(coords).all():
        raise InputError("coordinates that are not finite cannot be drawn; leave them out")
    return coords, z, bonds


def _draw(
    raster: Raster,
    xyz: Float[np.ndarray, "n 3"],
    z: Int[np.ndarray, " n"],
    bonds: Int[np.ndarray, "e 2"],
    shown: Bool[np.ndarray, " n"],
    style: Style,
    palette: dict[str, str],
    thin: float,
) -> None:
    symbols = [SYMBOLS[n] for n in z]
    colours = [np.array(ImageColor.getrgb(palette.get(s, OTHER))) / 255 for s in symbols]
    stick = STICK[style] * thin
    for i in np.flatnonzero(shown):
        radius = BALL.get(symbols[i], LARGE_BALL) if style == "balls" else stick
        if style == "sticks" and z[i] == 1:
            radius *= THIN
        raster.sphere(xyz[i], radius, colours[i])
    for i, j in bonds:
        if shown[i] and shown[j]:
            radius = stick * (THIN if 1 in (z[i], z[j]) else 1.0)
            raster.stick(xyz[i], xyz[j], radius, (colours[i], colours[j]))
