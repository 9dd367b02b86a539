"""RDKit's stereo marks (chiral tags, E/Z) and the tables and signs of `MolGraph`, both ways.

Places are found on the molecule without its marks, so that every isomer of a molecule has the same
tables and only the signs differ.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Int8
from rdkit import Chem

from sciffusion.domains.molecule.graph import MolGraph

_HANDS = {Chem.ChiralType.CHI_TETRAHEDRAL_CCW: 1, Chem.ChiralType.CHI_TETRAHEDRAL_CW: -1}
_SIDES = {
    Chem.BondStereo.STEREOCIS: 1,
    Chem.BondStereo.STEREOZ: 1,
    Chem.BondStereo.STEREOTRANS: -1,
    Chem.BondStereo.STEREOE: -1,
}


def stereo_tables(
    mol: Chem.Mol, atoms: list[Chem.Atom], links: list[Chem.Bond]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(tetra, tetra_sign, ez, ez_sign): every place that could be a stereo centre or bond."""
    unmarked = Chem.Mol(mol)
    Chem.RemoveStereochemistry(unmarked)
    places = Chem.FindPotentialStereo(unmarked, cleanIt=False, flagPossible=True)
    kinds = Chem.StereoType
    centres = {p.centeredOn for p in places if p.type == kinds.Atom_Tetrahedral}
    doubles = {p.centeredOn for p in places if p.type == kinds.Bond_Double}
    centres |= {i for i, atom in enumerate(atoms) if atom.GetChiralTag() in _HANDS}
    doubles |= {i for i, bond in enumerate(links) if bond.GetStereo() in _SIDES}
    rows = [_points(atoms[i]) for i in sorted(centres)]
    tetra = np.array(rows, dtype=np.int64).reshape(-1, 5)
    rows = sorted(row for i in doubles if (row := _torsion(links[i])) is not None)
    ez = np.array(rows, dtype=np.int64).reshape(-1, 4)
    return tetra, _hand_marks(mol, tetra), ez, _side_marks(mol, ez)


def _points(centre: Chem.Atom) -> list[int]:
    """A row of `tetra`."""
    around = sorted(neighbour.GetIdx() for neighbour in centre.GetNeighbors())
    return [centre.GetIdx(), *around, *[centre.GetIdx()] * (4 - len(around))]


def _torsion(bond: Chem.Bond) -> list[int] | None:
    """A row of `ez`; None for a cumulene, whose ends have no side."""
    ends = sorted((bond.GetBeginAtom(), bond.GetEndAtom()), key=lambda atom: atom.GetIdx())
    if any(end.GetHybridization() == Chem.HybridizationType.SP for end in ends):
        return None
    i, j = (end.GetIdx() for end in ends)
    beside = [[n.GetIdx() for n in end.GetNeighbors()] for end in ends]
    return [min(k for k in beside[0] if k != j), i, j, min(k for k in beside[1] if k != i)]


def _hand_marks(mol: Chem.Mol, tetra: Int[np.ndarray, "c 5"]) -> Int8[np.ndarray, " c"]:
    """Signs that the marks of atoms mean.

    A counter-clockwise mark is a positive volume of the neighbours in the order of the bonds; each
    exchange of two of them turns the sign round.
    """
    atoms = [mol.GetAtomWithIdx(i) for i in tetra[:, 0].tolist()]
    marks = [_HANDS.get(atom.GetChiralTag(), 0) * _parity(atom) for atom in atoms]
    return np.array(marks, dtype=np.int8)


def _parity(atom: Chem.Atom) -> int:
    """1 where an even number of exchanges sorts the neighbours from their order in RDKit."""
    order = [neighbour.GetIdx() for neighbour in atom.GetNeighbors()]
    return 1 - 2 * (sum(a > b for i, a in enumerate(order) for b in order[i + 1 :]) % 2)


def _side_marks(mol: Chem.Mol, ez: Int[np.ndarray, "d 4"]) -> Int8[np.ndarray, " d"]:
    """Signs that the marks of double bonds mean."""
    signs = []
    for a, i, j, b in ez.tolist():
        bond = mol.GetBondBetweenAtoms(i, j)
        sign = _SIDES.get(bond.GetStereo(), 0)
        for marked in bond.GetStereoAtoms() if sign else ():
            sign *= 1 if marked in (a, b) else -1
        signs.append(sign)
    return np.array(signs, dtype=np.int8)


def with_marks(mol: Chem.Mol, graph: MolGraph) -> Chem.Mol:
    """The molecule with the stereo marks that the graph's signs mean, superfluous ones cleaned."""
    mol = Chem.Mol(mol)
    Chem.RemoveStereochemistry(mol)
    ccw, cw = Chem.ChiralType.CHI_TETRAHEDRAL_CCW, Chem.ChiralType.CHI_TETRAHEDRAL_CW
    for centre, sign in zip(graph.tetra[:, 0].tolist(), graph.tetra_sign.tolist(), strict=True):
        if sign:
            atom = mol.GetAtomWithIdx(centre)
            atom.SetChiralTag(ccw if sign * _parity(atom) > 0 else cw)
    for (a, i, j, b), sign in zip(graph.ez.tolist(), graph.ez_sign.tolist(), strict=True):
        if sign:
            bond = mol.GetBondBetweenAtoms(i, j)
            bond.SetStereoAtoms(*((a, b) if bond.GetBeginAtomIdx() == i else (b, a)))
            cis, trans = Chem.BondStereo.STEREOCIS, Chem.BondStereo.STEREOTRANS
            bond.SetStereo(cis if sign > 0 else trans)
    if graph.ez_sign.any():  # it is from the directions of single bonds that RDKit perceives sides
        Chem.SetDoubleBondNeighborDirections(mol)
    Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    return mol


def signs_of(mol: Chem.Mol, graph: MolGraph) -> tuple[np.ndarray, np.ndarray]:
    """(tetra_sign, ez_sign) that the marks of a molecule with the graph's atoms mean."""
    return _hand_marks(mol, graph.tetra), _side_marks(mol, graph.ez)
