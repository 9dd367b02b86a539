"""Local geometry of a backbone: bonds, angles, peptide planes, clashes and handedness.

A break cannot hide here. Residues whose numbers follow each other within a chain should be bonded,
however far apart they lie; where numbers jump, as deposited files have it where residues were not
seen, only those that are bonded count. `expected_links` tells them apart, and all measures use it.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from sciffusion.domains.protein import geometry as g
from sciffusion.domains.protein.backbone import CA, Backbone, C, N, O
from sciffusion.domains.protein.secondary import ca_angles

TRANS, CIS, TOLERANCE = 3.80, 2.97, 0.10
"""CA-CA distances over a trans and a cis peptide bond, Angstrom."""
CA_CLASH, CA_APART = 3.0, 3
ATOM_CLASH, ATOMS_APART = 2.4, 2
"""Nearer than this, in Angstrom, clash CA (any backbone atoms) of residues so far apart or more."""
LEFT_HANDED, LEFT_RUN = (-70.0, -30.0), 4
"""CA dihedrals of a left-handed helix, degrees, and how many in a row make one."""

BONDS = {"N-CA": g.N_CA, "CA-C": g.CA_C, "C-O": g.C_O, "C-N": g.C_N}
"""Ideal lengths, Angstrom."""
ANGLES = {
    name: float(np.degrees(value))
    for name, value in (
        ("N-CA-C", g.N_CA_C),
        ("CA-C-O", g.CA_C_O),
        ("CA-C-N", g.CA_C_N),
        ("C-N-CA", g.C_N_CA),
    )
}
"""Ideal angles, degrees."""


def expected_links(b: Backbone) -> Bool[np.ndarray, " l_less_1"]:
    """Whether each residue should be bonded to the next: it is, or the next number follows."""
    follows = (np.diff(b.number) == 1) & (b.chain[1:] == b.chain[:-1])
    return b.joined | follows


def ca_distances(b: Backbone) -> Float[np.ndarray, " links"]:
    """CA-CA distances over the links, Angstrom."""
    ca = b.coords[:, CA]
    return np.linalg.norm(ca[1:] - ca[:-1], axis=-1)[expected_links(b)]


def near(values: Float[np.ndarray, " n"], middle: float) -> Bool[np.ndarray, " n"]:
    """Whether CA-CA distances are those of a kind of peptide bond, from both sides."""
    return np.abs(values - middle) <= TOLERANCE


def bond_lengths(b: Backbone) -> dict[str, Float[np.ndarray, " _"]]:
    """Every bond in Angstrom, under the names of `BONDS`."""
    n, ca, c, o = (b.coords[:, k] for k in (N, CA, C, O))
    links = expected_links(b)
    pairs = {"N-CA": (n, ca), "CA-C": (ca, c), "C-O": (c, o), "C-N": (c[:-1][links], n[1:][links])}
    return {name: np.linalg.norm(q - p, axis=-1) for name, (p, q) in pairs.items()}


def bond_angles(b: Backbone) -> dict[str, Float[np.ndarray, " _"]]:
    """Angles at CA, C and N in degrees, under the names of `ANGLES`."""
    n, ca, c, o = (b.coords[:, k] for k in (N, CA, C, O))
    links = expected_links(b)
    here, after = np.flatnonzero(links), np.flatnonzero(links) + 1
    triples = {
        "N-CA-C": (n, ca, c),
        "CA-C-O": (ca, c, o),
        "CA-C-N": (ca[here], c[here], n[after]),
        "C-N-CA": (c[here], n[after], ca[after]),
    }
    return {name: np.degrees(g.angle(*points)) for name, points in triples.items()}


def omegas(b: Backbone) -> Float[np.ndarray, " links"]:
    """Torsions of the peptide bonds, degrees in -180..180; 180 is trans, 0 cis."""
    return np.degrees(g.torsions(b.coords)[2][:-1][expected_links(b)])


def clashing(b: Backbone) -> Bool[np.ndarray, " l"]:
    """Residues that clash with another one.

    A CA pair of residues three or more apart nearer than 3.0 A, or any pair of backbone atoms of
    residues two or more apart nearer than 2.4 A. Residues of other chains are always far apart in
    sequence.
    """
    found = np.zeros(len(b), bool)
    found[clash_pairs(b)] = True
    return found


def clash_pairs(b: Backbone) -> Int[np.ndarray, "k 2"]:
    """Rows of residues that clash with each other, each pair once; see `clashing`."""
    chain = np.unique(b.chain, return_inverse=True)[1]
    found = []
    for atoms, least, apart in (
        (b.coords[:, [CA]], CA_CLASH, CA_APART),
        (b.coords, ATOM_CLASH, ATOMS_APART),
    ):
        pairs = cKDTree(atoms.reshape(-1, 3)).query_pairs(least, output_type="ndarray")
        i, j = np.sort(pairs // atoms.shape[1], axis=1).T
        far = (np.abs(i - j) >= apart) | (chain[i] != chain[j])
        found.append(np.stack([i[far], j[far]], 1))
    return np.unique(np.concatenate(found), axis=0)


def left_handed(b: Backbone) -> int:
    """How many runs of four CA dihedrals in a row are those of a left-handed helix.

    Overlapping runs count each, so that their number per residue is about the share of residues
    in such helices.
    """
    turn = np.degrees(ca_angles(b.coords[:, CA], expected_links(b))[1])
    inside = (turn >= LEFT_HANDED[0]) & (turn <= LEFT_HANDED[1])
    if len(inside) < LEFT_RUN:
        return 0
    return int(np.lib.stride_tricks.sliding_window_view(inside, LEFT_RUN).all(1).sum())
