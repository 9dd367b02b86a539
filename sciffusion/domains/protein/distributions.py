"""Distributions of a backbone's angles, and its size and topology.

The two maps are those by which sets of structures are compared: (angle, dihedral) along the CA
trace, and (phi, psi) of Ramachandran. Jensen-Shannon divergences of their histograms are in bits.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from sciffusion.domains.protein.backbone import CA, Backbone
from sciffusion.domains.protein.geometry import torsions
from sciffusion.domains.protein.secondary import ca_angles
from sciffusion.domains.protein.validity import expected_links

TURN_BINS = np.linspace(-180.0, 180.0, 37)
BEND_BINS = np.linspace(70.0, 170.0, 21)
"""Degrees; angles beyond fall into the first bin or the last."""
CONTACT, CONTACT_APART = 8.0, 3
"""CA of residues so far apart in sequence are in contact when nearer than this, Angstrom."""


def ca_map(b: Backbone) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """(angle at CA i, dihedral of CA i-1 to i+2) in degrees, where both are known."""
    bend, turn = (np.degrees(a) for a in ca_angles(b.coords[:, CA], expected_links(b)))
    known = np.isfinite(bend) & np.isfinite(turn)
    return bend[known], turn[known]


def ramachandran(b: Backbone) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """(phi, psi) in degrees of the residues linked on both sides."""
    links = expected_links(b)
    inner = np.append(False, links) & np.append(links, False)
    phi, psi, _ = torsions(b.coords)
    return np.degrees(phi[inner]), np.degrees(psi[inner])


def ca_histogram(b: Backbone) -> Int[np.ndarray, "20 36"]:
    """Counts of `ca_map`."""
    bend, turn = ca_map(b)
    inside = np.clip(bend, BEND_BINS[0], BEND_BINS[-1])
    return np.histogram2d(inside, turn, (BEND_BINS, TURN_BINS))[0].astype(np.int64)


def ramachandran_histogram(b: Backbone) -> Int[np.ndarray, "36 36"]:
    """Counts of `ramachandran`."""
    return np.histogram2d(*ramachandran(b), (TURN_BINS, TURN_BINS))[0].astype(np.int64)


def radius_of_gyration(b: Backbone) -> float:
    """Of the CA, Angstrom."""
    ca = b.coords[:, CA]
    return float(np.sqrt(((ca - ca.mean(0)) ** 2).sum(-1).mean()))


def usual_radius(length: Float[np.ndarray, "*b"] | float) -> Float[np.ndarray, "*b"]:
    """The radius of gyration of a globular chain of that many residues: 2.2 N^0.38 Angstrom."""
    return 2.2 * np.asarray(length, dtype=np.float64) ** 0.38


def relative_contact_order(b: Backbone) -> float:
    """Mean distance in sequence of contacts, over the length (Plaxco et al. 1998); 0 without any.

    Contacts are of CA here: nearer than 8 A, three or more residues apart.
    """
    ca = b.coords[:, CA]
    apart = np.linalg.norm(ca[:, None] - ca, axis=-1)
    i, j = np.nonzero(np.triu(apart < CONTACT, CONTACT_APART))
    return float((j - i).mean() / len(b)) if len(i) else 0.0
