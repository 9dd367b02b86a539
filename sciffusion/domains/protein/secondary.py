"""Secondary structure read off coordinates: P-SEA from the CA trace, DSSP from hydrogen bonds.

Both give one code a residue: loop, helix or strand. P-SEA asks whether CA distances, angles and
dihedrals are those of a helix or of a strand for long enough. DSSP asks for hydrogen bonds between
backbones: those of alpha-helix turns, and those of bridges between strands.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from sciffusion.domains.protein.backbone import C, N, O
from sciffusion.domains.protein.geometry import angle, dihedral, unit

LOOP, HELIX, STRAND = range(3)
LETTERS = "LHE"
"""The letter of each code."""

# P-SEA's criteria for helix and strand: (middle, tolerance) in Angstrom and degrees.
D2 = {STRAND: (6.7, 0.6)}
D3 = {HELIX: (5.3, 0.5), STRAND: (9.9, 0.9)}
D4 = {HELIX: (6.4, 0.6), STRAND: (12.4, 1.1)}
TAU = {HELIX: (89.0, 12.0), STRAND: (124.0, 14.0)}
ALPHA = {HELIX: (50.0, 20.0), STRAND: (-170.0, 45.0)}
SHORTEST = {HELIX: 5, STRAND: 4}
SHORT_STRAND, CONTACTS, NEAR = 3, 5, (4.2, 5.2)
"""Strands of three count too where that many CA in all lie between these distances of theirs."""

COUPLING = 0.084 * 332.0
"""DSSP's q1 q2 f: partial charges 0.42 e and 0.20 e, in kcal/mol Angstrom."""
BOND_ENERGY = -0.5
"""A hydrogen bond has less, kcal/mol."""
N_H = 1.0


def psea(
    ca: Float[np.ndarray, "l 3"], joined: Bool[np.ndarray, " l_less_1"] | None = None
) -> Int[np.ndarray, " l"]:
    """Codes by P-SEA (Labesse et al. 1997, Comput. Appl. Biosci. 13, 291), from CA alone.

    With CA distances d2 (i-1, i+1), d3 (i-1, i+2), d4 (i-1, i+3), angle tau (i-1, i, i+1) and
    dihedral alpha (i-1 to i+2), a residue fits a helix if d3 and d4 do or tau and alpha do, and a
    strand if d2, d3 and d4 do or tau and alpha do. Five in a row are a helix and four a strand
    (three, with other chains' CA beside them); each is longer by one at either end where d3, or
    for helices tau, still fits.

    Args:
        ca: CA positions, Angstrom.
        joined: whether each residue is bonded to the next; all are by default.
    """
    d2, d3, d4 = (_over(ca, joined, k) for k in (2, 3, 4))
    tau, alpha = (np.degrees(a) for a in ca_angles(ca, joined))
    apart = np.linalg.norm(ca[:, None] - ca, axis=-1)
    contacts = ((apart >= NEAR[0]) & (apart <= NEAR[1])).sum(1)

    fits = (_fits(d3, D3[HELIX]) & _fits(d4, D4[HELIX])) | (
        _fits(tau, TAU[HELIX]) & _turns(alpha, ALPHA[HELIX])
    )
    helix = np.zeros(len(ca), bool)
    for start, stop in runs(fits):
        helix[start:stop] = stop - start >= SHORTEST[HELIX]
    helix = _longer(helix, _fits(d3, D3[HELIX]) | _fits(tau, TAU[HELIX]))

    fits = (_fits(d2, D2[STRAND]) & _fits(d3, D3[STRAND]) & _fits(d4, D4[STRAND])) | (
        _fits(tau, TAU[STRAND]) & _turns(alpha, ALPHA[STRAND])
    )
    strand = np.zeros(len(ca), bool)
    for start, stop in runs(fits):
        beside = stop - start >= SHORT_STRAND and contacts[start:stop].sum() >= CONTACTS
        strand[start:stop] = beside or stop - start >= SHORTEST[STRAND]
    strand = _longer(strand, _fits(d3, D3[STRAND]))
    return np.where(strand, STRAND, np.where(helix, HELIX, LOOP))


def ca_angles(
    ca: Float[np.ndarray, "l 3"], joined: Bool[np.ndarray, " l_less_1"] | None = None
) -> tuple[Float[np.ndarray, " l"], Float[np.ndarray, " l"]]:
    """(angle at each CA, dihedral of i-1 to i+2) in radians; NaN where a break or an end is near.

    Args:
        ca: CA positions, Angstrom.
        joined: whether each residue is bonded to the next; all are by default.
    """
    bend, turn = np.full((2, len(ca)), np.nan)
    if len(ca) > 2:
        bend[1:-1] = angle(ca[:-2], ca[1:-1], ca[2:])
    if len(ca) > 3:
        turn[1:-2] = dihedral(ca[:-3], ca[1:-2], ca[2:-1], ca[3:])
    return _unbroken(bend, joined, 2), _unbroken(turn, joined, 3)


def dssp(
    coords: Float[np.ndarray, "l 4 3"],
    joined: Bool[np.ndarray, " l_less_1"] | None = None,
    donors: Bool[np.ndarray, " l"] | None = None,
) -> Int[np.ndarray, " l"]:
    """Codes by hydrogen bonds (Kabsch and Sander 1983, Biopolymers 22, 2577).

    An n-turn at i is a bond from N-H of i+n to C=O of i; two 4-turns in a row, at i-1 and i, make
    i to i+3 an alpha helix. Bridges are pairs of residues bonded in the parallel or antiparallel
    pattern; two of a kind that follow each other, or with a bulge (one more residue on one strand
    and up to four on the other), make all residues between them strand. Isolated bridges and 3-10
    and pi helices are loop here.

    Args:
        coords: N, CA, C, O of each residue, Angstrom.
        joined: whether each residue is bonded to the next; all are by default.
        donors: residues that have an N-H; proline has none. By default all that follow another.
    """
    length = len(coords)
    bond = hydrogen_bonds(coords, joined, donors)
    codes = np.full(length, LOOP)
    for kind, found in _bridges(bond, joined).items():
        for one, other in _ladders(found, 1 if kind == "parallel" else -1, joined):
            codes[one] = codes[other] = STRAND
    turn = np.diagonal(bond, -4) & _whole(length, joined, 4)
    for start in np.flatnonzero(turn[:-1] & turn[1:]):
        codes[start + 1 : start + 5] = HELIX
    return codes


def hydrogen_bonds(
    coords: Float[np.ndarray, "l 4 3"],
    joined: Bool[np.ndarray, " l_less_1"] | None = None,
    donors: Bool[np.ndarray, " l"] | None = None,
) -> Bool[np.ndarray, "l l"]:
    """Whether N-H of the row's residue is bonded to C=O of the column's.

    E = q1 q2 f (1/r(ON) + 1/r(CH) - 1/r(OH) - 1/r(CN)) < -0.5 kcal/mol. H lies 1 A from N, against
    the C=O of the residue before; where that is missing there is no N-H.
    """
    n, c, o = (coords[:, k].astype(np.float64) for k in (N, C, O))
    hydrogen = n.copy()
    hydrogen[1:] += N_H * unit(c[:-1] - o[:-1])

    def inverse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return 1 / np.maximum(np.linalg.norm(a[:, None] - b, axis=-1), 0.5)

    energy = COUPLING * (
        inverse(n, o) + inverse(hydrogen, c) - inverse(hydrogen, o) - inverse(n, c)
    )
    follows = np.append(False, _whole(len(coords), joined, 1))[: len(coords)]
    bond = (energy < BOND_ENERGY) & follows[:, None]
    if donors is not None:
        bond &= donors[:, None]
    rows = np.arange(len(coords))
    bond[rows, rows] = bond[rows[1:], rows[:-1]] = False  # the peptide's own C=O
    return bond


def runs(mask: Bool[np.ndarray, " l"]) -> Int[np.ndarray, "k 2"]:
    """(start, stop) of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8)))
    return edges.reshape(-1, 2)


def _whole(length: int, joined: np.ndarray | None, span: int) -> Bool[np.ndarray, " l_less_span"]:
    """Whether residues i to i+span are of one piece, for each i."""
    if joined is None or span < 1:
        return np.ones(max(length - span, 0), bool)
    if length <= span:
        return np.zeros(0, bool)
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(joined, bool), span)
    return np.asarray(windows.all(1))


def _unbroken(values: np.ndarray, joined: np.ndarray | None, span: int) -> np.ndarray:
    """Values at i of residues i-1 to i-1+span; NaN where these are not of one piece."""
    known = _whole(len(values), joined, span)
    values[1 : 1 + len(known)][~known] = np.nan
    return values


def _over(ca: np.ndarray, joined: np.ndarray | None, span: int) -> Float[np.ndarray, " l"]:
    """At i the distance of CA i-1 and i-1+span."""
    found = np.full(len(ca), np.nan)
    if len(ca) > span:
        found[1 : 1 + len(ca) - span] = np.linalg.norm(ca[span:] - ca[:-span], axis=-1)
    return _unbroken(found, joined, span)


def _fits(values: np.ndarray, criterion: tuple[float, float]) -> Bool[np.ndarray, " l"]:
    middle, tolerance = criterion
    return np.abs(values - middle) <= tolerance


def _turns(degrees: np.ndarray, criterion: tuple[float, float]) -> Bool[np.ndarray, " l"]:
    """The same for what is periodic."""
    middle, tolerance = criterion
    return np.abs((degrees - middle + 180) % 360 - 180) <= tolerance


def _longer(mask: np.ndarray, fits: np.ndarray) -> Bool[np.ndarray, " l"]:
    """Each stretch with one residue more at either end, where that fits."""
    before, after = np.append(mask[1:], False), np.append(False, mask[:-1])
    longer: np.ndarray = mask | ((before | after[: len(mask)]) & fits)
    return longer


def _bridges(bond: np.ndarray, joined: np.ndarray | None) -> dict[str, Bool[np.ndarray, "l l"]]:
    """Pairs of residues, three or more apart, that are bonded as neighbours in a sheet are."""
    length = len(bond)
    parallel, antiparallel = np.zeros((2, length, length), bool)
    if length > 2:
        at, before, after = slice(1, -1), slice(None, -2), slice(2, None)
        one = bond[after, at] & bond[at, before].T  # i+1 to j and j to i-1
        parallel[at, at] = one | one.T
        across = bond[at, at] & bond[at, at].T  # i to j and j to i
        beyond = bond[after, before] & bond[after, before].T  # i+1 to j-1 and j+1 to i-1
        antiparallel[at, at] = across | beyond
    inner = np.zeros(length, bool)
    inner[1 : length - 1] = _whole(length, joined, 2)
    rows = np.arange(length)
    allowed = inner[:, None] & inner & (np.abs(rows[:, None] - rows) >= 3)
    return {"parallel": parallel & allowed, "antiparallel": antiparallel & allowed}


def _ladders(bridges: np.ndarray, way: int, joined: np.ndarray | None) -> list[tuple[slice, slice]]:
    """Residues of both strands between two bridges that follow each other; `way` is j's."""
    breaks = np.zeros(len(bridges), int)
    if joined is not None:
        breaks[1:] = np.cumsum(~np.asarray(joined, bool))
    i, j = np.nonzero(np.triu(bridges))
    di, dj = i - i[:, None], way * (j - j[:, None])
    near = (np.minimum(di, dj) >= 1) & (np.minimum(di, dj) <= 2) & (np.maximum(di, dj) <= 5)
    near &= (breaks[i] == breaks[i][:, None]) & (breaks[j] == breaks[j][:, None])
    found = []
    for a, b in np.argwhere(near):
        low, high = sorted((j[a], j[b]))
        found.append((slice(i[a], i[b] + 1), slice(low, high + 1)))
    return found
