"""Angles of backbones, both ways: torsions read off coordinates, coordinates built from torsions.

Angles are in radians here. Torsions follow IUPAC: 0 is cis, positive is clockwise along the bond.
Batched over leading axes, in NumPy: the networks do not need them.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from sciffusion.domains.protein.backbone import CA, C, N, O

N_CA, CA_C, C_N, C_O = 1.459, 1.525, 1.336, 1.229
"""Bond lengths in Angstrom (Engh and Huber 2001, and the means of deposited chains)."""
N_CA_C, CA_C_N, C_N_CA, CA_C_O = np.radians([111.0, 116.6, 121.7, 120.1])
"""Bond angles."""

Points = Float[np.ndarray, "*b 3"]


def unit(v: Points) -> Points:
    """Vectors of length 1; zero stays zero."""
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)


def angle(a: Points, b: Points, c: Points) -> Float[np.ndarray, "*b"]:
    """The angle at b, in 0..pi."""
    u, v = unit(a - b), unit(c - b)
    return np.arctan2(np.linalg.norm(np.cross(u, v), axis=-1), (u * v).sum(-1))


def dihedral(a: Points, b: Points, c: Points, d: Points) -> Float[np.ndarray, "*b"]:
    """The torsion about b-c, in -pi..pi."""
    axis = unit(c - b)
    m, n = np.cross(b - a, axis), np.cross(axis, d - c)
    return np.arctan2((np.cross(m, n) * axis).sum(-1), (m * n).sum(-1))


def torsions(
    coords: Float[np.ndarray, "*b l 4 3"],
) -> tuple[Float[np.ndarray, "*b l"], Float[np.ndarray, "*b l"], Float[np.ndarray, "*b l"]]:
    """(phi, psi, omega) of each residue; NaN where a neighbour is missing at the ends.

    phi_i turns about N_i-CA_i, psi_i about CA_i-C_i, omega_i about C_i-N_(i+1). Nothing is known of
    chain breaks here: mask them with `Backbone.joined`.
    """
    n, ca, c = (coords[..., k, :] for k in (N, CA, C))
    phi, psi, omega = (np.full(coords.shape[:-2], np.nan) for _ in range(3))
    here, after = (..., slice(None, -1), slice(None)), (..., slice(1, None), slice(None))
    phi[..., 1:] = dihedral(c[here], n[after], ca[after], c[after])
    psi[..., :-1] = dihedral(n[here], ca[here], c[here], n[after])
    omega[..., :-1] = dihedral(ca[here], c[here], n[after], ca[after])
    return phi, psi, omega


def place(a: Points, b: Points, c: Points, length: float, bend: float, turn: np.ndarray) -> Points:
    """The point at a distance from c, an angle at c to b and a torsion about b-c to a (NeRF)."""
    axis = unit(c - b)
    normal = unit(np.cross(b - a, axis))
    side = np.cross(normal, axis)
    turn = np.asarray(turn)[..., None]
    out = -np.cos(bend) * axis + np.sin(bend) * (np.cos(turn) * side + np.sin(turn) * normal)
    return c + length * out


def build(
    phi: Float[np.ndarray, "*b l"], psi: Float[np.ndarray, "*b l"], omega: Float[np.ndarray, "*b l"]
) -> Float[np.ndarray, "*b l 4 3"]:
    """Ideal coordinates of these torsions, the reverse of `torsions`; phi_0 is not used.

    The first residue has its N at the origin, its CA on the x axis and its C in the xy plane.
    """
    length = phi.shape[-1]
    x = np.zeros((*phi.shape, 4, 3))
    x[..., 0, CA, 0] = N_CA
    x[..., 0, C, :] = x[..., 0, CA, :] + CA_C * np.array([-np.cos(N_CA_C), np.sin(N_CA_C), 0.0])
    for i in range(length):
        n, ca, c = x[..., i, N, :], x[..., i, CA, :], x[..., i, C, :]
        x[..., i, O, :] = place(n, ca, c, C_O, CA_C_O, psi[..., i] + np.pi)
        if i + 1 == length:
            break
        after = x[..., i + 1, :, :]
        after[..., N, :] = place(n, ca, c, C_N, CA_C_N, psi[..., i])
        after[..., CA, :] = place(ca, c, after[..., N, :], N_CA, C_N_CA, omega[..., i])
        after[..., C, :] = place(
            c, after[..., N, :], after[..., CA, :], CA_C, N_CA_C, phi[..., i + 1]
        )
    return x
