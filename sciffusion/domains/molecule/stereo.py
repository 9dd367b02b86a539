"""Handedness, double-bond sides and bonds as they are in space, from coordinates alone.

A centre's hand is the sign of the volume that its four points span, a double bond's side the sign
of the cosine of its torsion. What is too flat or too distorted to tell reads as 0, and 0 never
obeys. Bonds are read from covalent radii, and double bonds that nothing strains must be flat. NumPy
only: neither RDKit nor CIP labels.

All functions take one conformer (N, 3) or a stack of them (K, N, 3), in Angstrom.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from sciffusion.domains.molecule.graph import ATOM_FEATURES, BOND_FEATURES, MolGraph

FLAT = 0.1
"""Volume of three unit edges below which a centre is flat; a regular tetrahedron has 0.71."""
TWISTED = 0.2
"""|cos torsion| below which a double bond has no side: within 11.5 degrees of a right angle."""
FLAT_ENOUGH = np.cos(np.radians(40))
"""|cos torsion| below which a double bond outside of small rings is twisted; of 5,700 such bonds in
DFT and CREST conformers of drug-like molecules the least flat is 37 degrees off."""
BROKEN = 1.3
"""A bond longer than this many sums of covalent radii is broken; in 50,000 DFT conformers of
drug-like molecules and of QM9 the longest has 1.28 (N-O), all others below 1.20."""
TOUCHING = 1.25
"""Other atoms nearer than this are bonded; the nearest real pair has 1.41 (GFN2-xTB: 1.26) ..."""
TOUCHING_13 = 1.15
"""... but neighbours of one atom, which cages press to 1.23 (bicyclo[1.1.1]pentane)."""
SQUEEZED = 0.65
"""A bond shorter than this is two atoms in one place; the shortest real one has 0.78."""

# Cordero et al. 2008 (doi:10.1039/b801115j), elements 1 to 96, Angstrom; C is the sp3 value.
RADII = np.array([
    0.00, 0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07,
    1.05, 1.02, 1.06, 2.03, 1.76, 1.70, 1.60, 1.53, 1.39, 1.39, 1.32, 1.26, 1.24, 1.32, 1.22, 1.22,
    1.20, 1.19, 1.20, 1.20, 1.16, 2.20, 1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45,
    1.44, 1.42, 1.39, 1.39, 1.38, 1.39, 1.40, 2.44, 2.15, 2.07, 2.04, 2.03, 2.01, 1.99, 1.98, 1.98,
    1.96, 1.94, 1.92, 1.92, 1.89, 1.90, 1.87, 1.87, 1.75, 1.70, 1.62, 1.51, 1.44, 1.41, 1.36, 1.36,
    1.32, 1.45, 1.46, 1.48, 1.40, 1.50, 1.50, 2.60, 2.21, 2.15, 2.06, 2.00, 1.96, 1.90, 1.87, 1.80,
    1.69, *([1.6] * 22),
])  # fmt: skip

DOUBLE, SP2, LARGE = 2, 3, 9
"""Categories of `BOND_FEATURES` ("type", "ring") and `ATOM_FEATURES` ("hybridisation")."""
PAIRS = 1 << 22
"""Pairs of atoms that are looked at together when conformers are judged."""


def read_stereo(
    coords: Float[np.ndarray, "*k n 3"], graph: MolGraph
) -> tuple[Int8[np.ndarray, "*k c"], Int8[np.ndarray, "*k d"]]:
    """(tetra_sign, ez_sign) as they are in space; 0 where it is too flat or twisted to tell."""
    x = np.asarray(coords, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return _hands(x, graph.tetra), _sides(x, graph)


def isomer_signs(
    coords: Float[np.ndarray, "*k n 3"], graph: MolGraph
) -> tuple[Int8[np.ndarray, "*k c"], Int8[np.ndarray, "*k d"]]:
    """`read_stereo` without the amines, which invert: two hands of them are one compound."""
    tetra_sign, ez_sign = read_stereo(coords, graph)
    charge, degree = (list(ATOM_FEATURES).index(name) for name in ("charge", "degree"))
    centres = graph.atoms[graph.tetra[:, 0]]
    neutral = centres[:, charge] == ATOM_FEATURES["charge"] // 2
    amine = (centres[:, 0] == 7) & neutral & (centres[:, degree] == 3)
    return np.where(amine, 0, tetra_sign).astype(np.int8), ez_sign


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def _triple(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return (a * np.cross(b, c)).sum(-1)


def _sign(value: np.ndarray, least: float) -> np.ndarray:
    """Sign of a value, 0 where it is smaller than `least` (or not a number)."""
    return np.where(np.abs(value) > least, np.sign(value), 0).astype(np.int8)


def _hands(x: np.ndarray, tetra: Int[np.ndarray, "c 5"]) -> Int8[np.ndarray, "*k c"]:
    """The volume's sign, where the centre lies among its neighbours.

    Seen from the centre, the four faces then turn the same way. Where one turns the other way, two
    readers that look at different faces would see different hands.
    """
    o, a, b, c, d = (x[..., column, :] for column in tetra.T)
    hand = _sign(_triple(_unit(a - d), _unit(b - d), _unit(c - d)), FLAT)
    a, b, c, d = (_unit(p - o) for p in (a, b, c, d))
    faces = np.stack([_triple(a, b, c), -_triple(a, b, d), _triple(a, c, d), -_triple(b, c, d)])
    against = (faces * hand < -FLAT).any(0)  # a lone pair (d = o) makes all but one NaN: no face
    return np.where(against, 0, hand).astype(np.int8)


def _sides(x: np.ndarray, graph: MolGraph) -> Int8[np.ndarray, "*k d"]:
    """The cosine's sign of the torsion a-i-j-b, where the other neighbours do not speak against."""
    sides = []
    for a, i, j, b in graph.ez.tolist():
        left = [a, *(k for k in _neighbours(graph, i) if k not in (a, j))][:2]
        right = [b, *(k for k in _neighbours(graph, j) if k not in (b, i))][:2]
        turned = np.array([1, -1])[: len(left), None] * np.array([1, -1])[: len(right)]
        seen = _sign(_torsion_cosines(x, i, j, left, right), TWISTED) * turned
        first = seen[..., 0, 0]
        against = (seen * first[..., None, None] < 0).any((-1, -2))
        sides.append(np.where(against, 0, first))
    return np.stack(sides, -1).astype(np.int8) if sides else np.zeros((*x.shape[:-2], 0), np.int8)


def _neighbours(graph: MolGraph, atom: int) -> list[int]:
    beside = graph.bonds[(graph.bonds == atom).any(1)]
    return beside[beside != atom].tolist()


def _torsion_cosines(
    x: np.ndarray, i: int, j: int, left: list[int], right: list[int]
) -> Float[np.ndarray, "*k l r"]:
    """Cosines of the torsions about i-j, of each neighbour of i with each of j."""
    axis = _unit(x[..., j, :] - x[..., i, :])[..., None, :]
    from_left = _across(x[..., left, :] - x[..., i, None, :], axis)
    from_right = _across(x[..., right, :] - x[..., j, None, :], axis)
    return from_left @ np.swapaxes(from_right, -1, -2)


def _across(v: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Unit vector of the part of `v` that stands at a right angle to the axis."""
    return _unit(v - (v * axis).sum(-1, keepdims=True) * axis)


def _twisted(
    coords: Float[np.ndarray, "*k n 3"], graph: MolGraph
) -> tuple[Bool[np.ndarray, "*k d"], list[tuple[int, int]]]:
    """(whether each is twisted, the double bonds that should be flat).

    These are the bonds between uncharged sp2 carbons and nitrogens, outside of rings of up to eight
    atoms. Cages and bridgeheads twist the others; charge (amidinium) makes them half single.
    """
    x = np.asarray(coords, dtype=np.float64)
    column = {name: graph.atoms[:, k] for k, name in enumerate(ATOM_FEATURES)}
    apt = np.isin(column["z"], (6, 7)) & (column["charge"] == ATOM_FEATURES["charge"] // 2)
    apt &= column["hybridisation"] == SP2
    kind, ring = (graph.bond_features[:, list(BOND_FEATURES).index(k)] for k in ("type", "ring"))
    chosen = (kind == DOUBLE) & ((ring == 0) | (ring == LARGE)) & apt[graph.bonds].all(1)
    places, twisted = [], []
    for i, j in graph.bonds[chosen].tolist():
        left = [k for k in _neighbours(graph, i) if k != j]
        right = [k for k in _neighbours(graph, j) if k != i]
        if left and right:
            places.append((i, j))
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                cosines = _torsion_cosines(x, i, j, left, right)
            twisted.append(~(np.abs(cosines) > FLAT_ENOUGH).all((-1, -2)))
    if not places:
        return np.zeros((*x.shape[:-2], 0), bool), places
    return np.stack(twisted, -1), places


def obeys(coords: Float[np.ndarray, "*k n 3"], graph: MolGraph) -> Bool[np.ndarray, "*k"]:
    """Whether every stereo sign that the graph specifies is met."""
    pairs = zip(read_stereo(coords, graph), (graph.tetra_sign, graph.ez_sign), strict=True)
    met = [((read == asked) | (asked == 0)).all(-1) for read, asked in pairs]
    return met[0] & met[1]


def flat(coords: Float[np.ndarray, "*k n 3"], graph: MolGraph) -> Bool[np.ndarray, "*k"]:
    """Whether the double bonds that nothing strains are flat within 40 degrees."""
    return ~_twisted(coords, graph)[0].any(-1)


def bonds_kept(coords: Float[np.ndarray, "*k n 3"], graph: MolGraph) -> Bool[np.ndarray, "*k"]:
    """Whether the bonds that distances show are the graph's: none broken, none new."""
    near, wanted = _near(coords, graph)
    return (near == wanted).all((-1, -2))


def _near(
    coords: Float[np.ndarray, "*k n 3"], graph: MolGraph
) -> tuple[Bool[np.ndarray, "*k n n"], Bool[np.ndarray, "n n"]]:
    """(bonds as distances show them, bonds of the graph), both with the diagonal False."""
    x = np.asarray(coords, dtype=np.float64)
    n = len(graph)
    bonded = np.zeros((n, n), bool)
    bonded[tuple(graph.bonds.T)] = True
    bonded |= bonded.T
    steps = bonded.astype(np.float32)
    second = (steps @ steps > 0) & ~bonded
    radius = RADII[graph.z]
    sums = radius[:, None] + radius
    factor = np.where(bonded, BROKEN, np.where(second, TOUCHING_13, TOUCHING))
    square = (x**2).sum(-1)
    with np.errstate(invalid="ignore", over="ignore"):
        # |x - y|^2 by one matrix product: a difference array of (K, N, N, 3) would be large.
        inner = x @ np.swapaxes(x, -1, -2)
        far2 = square[..., :, None] + square[..., None, :] - 2 * inner
        near = (far2 < (factor * sums) ** 2) & ~np.eye(n, dtype=bool)
        return near & ~(bonded & (far2 < (SQUEEZED * sums) ** 2)), bonded


def right(
    coords: Float[np.ndarray, "k n 3"], graph: MolGraph, rough: bool = False
) -> Bool[np.ndarray, " k"]:
    """Whether each conformer is finite, has the graph's bonds and stereo and flat double bonds.

    Args:
        rough: let twisted double bonds be, which relaxing mends.
    """
    some = max(1, PAIRS // len(graph) ** 2)
    return np.concatenate([
        np.isfinite(x).all((1, 2))
        & obeys(x, graph)
        & (rough or flat(x, graph))
        & bonds_kept(x, graph)
        for x in np.split(coords, range(some, len(coords), some))
    ])  # fmt: skip


def fault(coords: Float[np.ndarray, "n 3"], graph: MolGraph) -> str | None:
    """What is wrong with a conformer: the first of not finite, bonds, stereo, twist; None: nothing.

    Atoms are numbered from 1.
    """
    if not np.isfinite(coords).all():
        return "coordinates are not finite"
    near, bonded = _near(coords, graph)
    for wrong, what in ((bonded & ~near, "is broken"), (near & ~bonded, "is new")):
        if wrong.any():
            i, j = np.argwhere(wrong)[0]
            return f"bond {i + 1}-{j + 1} {what} ({np.linalg.norm(coords[i] - coords[j]):.2f} A)"
    tetra, ez = read_stereo(coords, graph)
    for read, asked, places, kind in (
        (tetra, graph.tetra_sign, graph.tetra[:, 0], "centre"),
        (ez, graph.ez_sign, graph.ez[:, 1], "double bond"),
    ):
        for k in np.flatnonzero((read != asked) & (asked != 0)):
            how = "is turned round" if read[k] else "is too flat or twisted to tell"
            return f"{kind} at atom {places[k] + 1} {how}"
    twisted, bonds = _twisted(coords, graph)
    for k in np.flatnonzero(twisted)[:1]:
        i, j = bonds[k]
        return f"double bond {i + 1}-{j + 1} is twisted"
    return None
