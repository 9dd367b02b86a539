"""Structures written by hand: backbones of ideal geometry as PDB text, line by line."""

from types import SimpleNamespace

import numpy as np
import pytest

from sciffusion.domains.protein.backbone import ATOMS, THREE_LETTER
from sciffusion.domains.protein.geometry import build

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def sequence(length, seed=0):
    return "".join(np.random.default_rng(seed).choice(list(LETTERS), length))


def coords(length, seed=0, far=0.0):
    """A wound chain; `far` Angstrom away."""
    rng = np.random.default_rng(seed)
    phi, psi = np.radians([[-70.0], [-20.0]]) + rng.normal(0, 0.3, (2, length))
    return np.round(build(phi, psi, np.full(length, np.pi)) + far, 3)


def line(name, residue, chain, number, xyz, alternate="", insertion="", occupancy=1.0, het=False):
    mark = "HETATM" if het else "ATOM"
    x, y, z = xyz
    return (
        f"{mark:<6}{1:5d}  {name:<3}{alternate or ' '}{residue:>3} {chain or ' '}{number:4d}"
        f"{insertion or ' '}   {x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{20:6.2f}{'':10}{name[0]:>2}"
    )


def residue(x, kind, chain, number, names=ATOMS, **marks):
    return [
        line(name, kind, chain, number, x[k], **marks)
        for k, name in enumerate(ATOMS)
        if name in names
    ]


def chain(name, length, seed=0, first=1, far=0.0):
    """A list of lines for each residue."""
    x, letters = coords(length, seed, far), sequence(length, seed)
    return [residue(x[i], THREE_LETTER[letters[i]], name, first + i) for i in range(length)]


def text(*chains):
    """A file of chains, each a list of residues' lines."""
    lines = [line for rows in chains for row in rows for line in row]
    return "".join(f"{line}\n" for line in [*lines, "END"])


@pytest.fixture(scope="session")
def pdb():
    """Functions that write PDB files."""
    return SimpleNamespace(
        sequence=sequence, coords=coords, line=line, residue=residue, chain=chain, text=text
    )
