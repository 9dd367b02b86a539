"""Stereo and bonds read from space: against RDKit, and against what geometry says."""

import subprocess
import sys

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from sciffusion.domains.molecule.chem import from_mol, parse_smiles
from sciffusion.domains.molecule.marks import signs_of
from sciffusion.domains.molecule.stereo import (
    RADII,
    bonds_kept,
    fault,
    flat,
    isomer_signs,
    obeys,
    read_stereo,
    right,
)

CENTRES = [
    "C[C@H](O)F",
    "C[C@@H](O)F",
    "C[C@H]1CC[C@@H](C)CC1",
    "C[C@H](O)[C@H](O)[C@@H](C)O",
    "C[S@](=O)CC",
    "C[P@](CC)c1ccccc1",
    "CC[P@@](=O)(O)C",
    "C[N@+](CC)(CCC)CCO",
    "C[C@@H]1C[N@]1C",
    "Br[C@@H](C)[C@]12C[C@H]3C[C@H](C[C@H](C3)C1)C2",
    "CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(O)=O",
    "C[C@]12CC[C@H]3[C@@H](CCc4cc(O)ccc34)[C@@H]1CC[C@@H]2O",
]
BONDS = [
    "F/C(Cl)=C(/Br)I",
    "F/C(Cl)=C(\\Br)I",
    "C/C=C/C",
    "C/C=N/O",
    "C1CCC/C=C/CC1",
    "C1CCC/C=C\\CC1",
    "CC/C=C\\C[C@H](N)/C=C/O",
]
PLAIN = ["C1C2CC1C2", "CS(=O)(=O)c1ccc(Br)cc1Cl", "C12C3C4C1C5C2C3C45", "OP(=O)(O)OCC#N"]


def made(smiles, seed=7):
    """(RDKit's molecule with a conformer, graph, coordinates)."""
    mol = parse_smiles(smiles)
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=seed) == 0
    return mol, from_mol(mol), mol.GetConformer().GetPositions()


def rotation(seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.linalg.det(q)


@pytest.mark.parametrize("smiles", CENTRES + BONDS)
def test_what_rdkit_embeds_obeys(smiles):
    _, graph, x = made(smiles)
    tetra, ez = read_stereo(x, graph)
    assert (tetra == graph.tetra_sign)[graph.tetra_sign != 0].all()
    assert (ez == graph.ez_sign).all()
    assert graph.tetra_sign.any() or graph.ez_sign.any()
    assert obeys(x, graph)
    assert bonds_kept(x, graph)
    assert fault(x, graph) is None


@pytest.mark.parametrize("smiles", CENTRES + BONDS)
def test_a_mirror_turns_centres_round_and_not_double_bonds(smiles):
    _, graph, x = made(smiles)
    tetra, ez = read_stereo(x, graph)
    turned, same = read_stereo(x * [1, 1, -1], graph)
    assert (turned == -tetra).all()
    assert (same == ez).all()
    assert obeys(-x, graph) == (not graph.tetra_sign.any())


@pytest.mark.parametrize("smiles", CENTRES + BONDS)
def test_only_the_shape_counts(smiles):
    """Turned, moved, atoms numbered otherwise; and a stack reads as its parts do."""
    mol, graph, x = made(smiles)
    known = read_stereo(x, graph)
    moved = x @ rotation().T + [30.0, -5.0, 2.0]
    stack = np.stack([x, moved, -x])
    for k, one in enumerate(stack):
        for whole, part in zip(read_stereo(stack, graph), read_stereo(one, graph), strict=True):
            assert (whole[k] == part).all()
    for one, other in zip(read_stereo(moved, graph), known, strict=True):
        assert (one == other).all()
    assert obeys(stack, graph).tolist() == [obeys(one, graph) for one in stack]
    assert bonds_kept(stack, graph).all()
    order = np.random.default_rng(1).permutation(len(graph))
    renumbered = from_mol(Chem.RenumberAtoms(mol, order.tolist()))
    assert obeys(x[order], renumbered)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smiles", ["CC(O)C(N)C(F)C=CC(Cl)Br", "CC1CCC(C(C)O)C(S(C)=O)C1C=NO"])
def test_an_open_molecule_reads_as_rdkit_reads_it(smiles, seed):
    mol, graph, x = made(smiles, seed + 1)
    assert not graph.tetra_sign.any()
    Chem.AssignStereochemistryFrom3D(mol)
    theirs = signs_of(mol, graph)
    for ours, other in zip(read_stereo(x, graph), theirs, strict=True):
        assert (ours == other)[other != 0].all()
    assert np.abs(theirs[0]).sum() >= 4


def test_exchanging_two_neighbours_turns_a_centre_round():
    _, graph, x = made("F[C@](Cl)(Br)C")
    (centre, a, b, c, d) = graph.tetra[0]
    known = read_stereo(x, graph)[0]
    swapped = x.copy()
    swapped[[a, b]] = x[[b, a]]
    assert (read_stereo(swapped, graph)[0] == -known).all()
    flat = x.copy()
    flat[:, 2] = 0
    assert not read_stereo(flat, graph)[0].any()
    assert not obeys(flat, graph)
    outside = x.copy()  # the centre beyond one of its faces: readers would differ
    outside[centre] = x[a] + x[b] + x[c] - 2 * x[d]
    assert not read_stereo(outside, graph)[0].any()


def turned(x, graph, degrees):
    """One end of the only double bond turned about it."""
    i, j = graph.bonds[graph.bond_features[:, 0] == 2][0].tolist()
    side, edges = {j}, [tuple(e) for e in graph.bonds.tolist()]
    while True:
        more = {q for e in edges for p, q in (e, e[::-1]) if p in side and {p, q} != {i, j}}
        if more <= side:
            break
        side |= more
    axis = (x[j] - x[i]) / np.linalg.norm(x[j] - x[i])
    k = np.cross(np.eye(3), axis)
    angle = np.deg2rad(degrees)
    spin = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    out, rows = x.copy(), sorted(side)
    out[rows] = (x[rows] - x[j]) @ spin.T + x[j]
    return out


@pytest.mark.parametrize("smiles", ["C/C=C/C", "C/C=C\\C", "F/C(Cl)=C(/Br)C", "C/C=N/O"])
def test_half_a_turn_exchanges_the_sides_and_a_quarter_has_none(smiles):
    _, graph, x = made(smiles)
    known = read_stereo(x, graph)[1]
    assert known.any()
    assert (read_stereo(turned(x, graph, 180), graph)[1] == -known).all()
    for degrees in (90, -90):
        assert not read_stereo(turned(x, graph, degrees), graph)[1].any()
        assert "twisted" in fault(turned(x, graph, degrees), graph)
    assert (read_stereo(turned(x, graph, 30), graph)[1] == known).all()


def test_both_neighbours_on_one_side_are_no_answer():
    _, graph, x = made("F/C(Cl)=C(/Br)C")
    a, i, j, _ = graph.ez[0]
    other = next(
        k for k in range(len(graph)) if {i, k} in map(set, graph.bonds) and k not in (a, j)
    )
    x[other] = x[a] + 0.3 * (x[other] - x[a]) / np.linalg.norm(x[other] - x[a])
    assert not read_stereo(x, graph)[1].any()


def test_amines_invert_and_are_open_unless_they_are_asked_for():
    _, graph, x = made("C[C@@H]1C[N@]1C")
    assert np.abs(graph.tetra_sign).sum() == 2
    nitrogen = graph.z[graph.tetra[:, 0]] == 7
    assert (isomer_signs(x, graph)[0] == np.where(nitrogen, 0, read_stereo(x, graph)[0])).all()
    _, ion, y = made("C[N@+](CC)(CCC)CCO")
    assert isomer_signs(y, ion)[0].tolist() == ion.tetra_sign.tolist()


@pytest.mark.parametrize("smiles", CENTRES + PLAIN)
def test_bonds_are_those_of_the_graph(smiles):
    _, graph, x = made(smiles)
    assert bonds_kept(x, graph)
    assert bonds_kept(x * 1.1, graph)
    ends = np.zeros(len(graph), int)
    np.add.at(ends, graph.bonds.ravel(), 1)
    hydrogen = int(np.flatnonzero((graph.z == 1) | (ends == 1))[-1])
    (bond,) = graph.bonds[(graph.bonds == hydrogen).any(1)]
    anchor = int(bond[bond != hydrogen][0])
    along = x[hydrogen] - x[anchor]
    broken = x.copy()
    broken[hydrogen] = x[anchor] + 1.5 * along / np.linalg.norm(along) * (
        RADII[graph.z[hydrogen]] + RADII[graph.z[anchor]]
    )
    assert not bonds_kept(broken, graph)
    assert f"bond {min(bond) + 1}-{max(bond) + 1} is broken" in fault(broken, graph)
    squeezed = x.copy()
    squeezed[hydrogen] = x[anchor] + 0.2 * along
    assert not bonds_kept(squeezed, graph)


def test_atoms_that_come_too_near_are_a_new_bond():
    graph = from_mol(parse_smiles("[Ne].[Ne]"))
    pairs = np.array([[[0, 0, 0], [d * 2 * RADII[10], 0, 0]] for d in (1.0, 1.2, 1.3, 3.0)])
    assert bonds_kept(pairs, graph).tolist() == [False, False, True, True]
    assert "is new" in fault(pairs[0], graph)


def test_a_ring_that_closes_where_none_is():
    """1,3-neighbours at bonding distance: butane's angle folded to a cyclopropane's."""
    _, graph, x = made("CCC")
    unit = (x[2] - x[1]) / np.linalg.norm(x[2] - x[1])
    folded = x.copy()
    along = (x[0] - x[1]) / np.linalg.norm(x[0] - x[1])
    across = along - (along @ unit) * unit
    across /= np.linalg.norm(across)
    folded[0] = x[1] + 1.5 * (np.cos(np.pi / 3) * unit + np.sin(np.pi / 3) * across)
    assert fault(folded, graph) is not None
    assert not bonds_kept(folded, graph)


def test_coordinates_that_are_no_numbers_are_a_fault():
    _, graph, x = made("C[C@H](O)F")
    x[0, 0] = np.nan
    assert fault(x, graph) == "coordinates are not finite"
    assert not bonds_kept(x, graph)
    assert not obeys(x, graph)


def test_radii_are_those_that_rdkit_uses():
    table = Chem.GetPeriodicTable()
    for z in [*range(1, 19), 34, 35, 53]:
        assert RADII[z] == pytest.approx(table.GetRcovalent(z), abs=0.011)
    assert (RADII[1:] > 0.25).all()
    assert len(RADII) == 119


def test_it_works_where_rdkit_is_not():
    code = "import sys, sciffusion.domains.molecule.stereo; print('rdkit' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


TWISTABLE = [
    "CC(C)=C(C)C",
    "CC(C#N)=C(C#N)C",
    "CCN=C(C)C",
    "C/C=C/C",
    "C/N=N/C",
]


@pytest.mark.parametrize("smiles", TWISTABLE)
def test_a_double_bond_must_be_flat_marked_or_not(smiles):
    _, graph, x = made(smiles)
    for degrees in (0, 20, 60, 120, 160):
        assert flat(turned(x, graph, degrees), graph) == (degrees in (0, 20, 160))
    both = np.stack([x, turned(x, graph, 60)])
    assert right(both, graph).tolist() == [True, False]
    assert "is twisted" in fault(both[1], graph)


@pytest.mark.parametrize(
    "smiles", ["CC=C=CC", "CC(=O)NC", "CC(=[N+]=[N-])C", "C=C", *PLAIN, *CENTRES]
)
def test_what_has_no_double_bond_to_flatten_is_flat(smiles):
    _, graph, x = made(smiles)
    assert flat(x, graph)
    assert flat(np.stack([x, x]), graph).shape == (2,)


@pytest.mark.parametrize("smiles", ["C1CCC=CC1", "C[NH+]=C(N)N"])
def test_what_cages_or_charges_may_twist_is_let_be(smiles):
    _, graph, x = made(smiles)
    assert flat(turned(x, graph, 60), graph)
