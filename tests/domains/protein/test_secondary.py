import numpy as np
import pytest

from sciffusion.domains.protein import secondary as ss
from sciffusion.domains.protein.backbone import CA, C, N, O
from sciffusion.domains.protein.geometry import angle, build, dihedral, unit
from sciffusion.domains.protein.secondary import HELIX, LOOP, STRAND, dssp, psea, runs

BASINS = np.array([(-63, -42), (-120, 130), (-70, 145), (60, 45), (-80, -10)], float)


def ideal(length, phi, psi):
    return build(*(np.radians(np.full(length, a)) for a in (phi, psi, 180.0)))


def irregular(seed, length=80):
    """Stretches of Ramachandran basins with noise: helices, strands, and what is neither."""
    rng = np.random.default_rng(seed)
    basin = np.repeat(rng.integers(len(BASINS), size=length), rng.integers(1, 9, length))[:length]
    phi, psi = np.radians(BASINS[basin] + rng.normal(0, 9, (length, 2))).T
    return build(phi, psi, np.full(length, np.pi))


def sheet(phi, psi, way, shift):
    """Two ideal strands of seven residues side by side, the second one turned round or not."""
    one = ideal(7, phi, psi)
    one -= one[:, CA].mean(0)
    along = np.linalg.svd(one[:, CA])[2][0]
    across = (one[::2, O] - one[::2, C]).mean(0)
    across = unit(across - along * (across @ along))
    normal = np.cross(along, across)
    other = one if way == 1 else 2 * (one @ normal)[..., None] * normal - one
    joined = np.ones(13, bool)
    joined[6] = False
    return np.concatenate([one, other + 4.4 * across + shift * along]), joined


def moved(x):
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    return x @ (turn * np.linalg.det(turn)) + [3.0, -20.0, 7.0]


def test_ideal_helix_and_strand():
    helix, strand = ideal(20, -63, -42), ideal(12, -120, 130)
    np.testing.assert_array_equal(psea(helix[:, CA])[1:-3], HELIX)
    np.testing.assert_array_equal(psea(strand[:, CA])[1:-3], STRAND)
    np.testing.assert_array_equal(dssp(helix)[1:-1], HELIX)
    np.testing.assert_array_equal(dssp(strand), LOOP)  # a strand alone has no bonds


@pytest.mark.parametrize(
    ("phi", "psi", "way", "shift"), [(-139, 135, -1, -2), (-119, 113, 1, -1.75)]
)
def test_strands_side_by_side_make_a_sheet(phi, psi, way, shift):
    coords, joined = sheet(phi, psi, way, shift)
    codes = dssp(coords, joined).reshape(2, 7)
    np.testing.assert_array_equal(codes[:, [1, 2, 3, 4, 5]], STRAND)
    far = coords + np.repeat([[0.0], [9.0]], 7, 0)[:, None]
    np.testing.assert_array_equal(dssp(far, joined), LOOP)


def psea_by_residue(ca):
    """The published rules, one residue at a time."""

    def between(k, a, b):
        return np.linalg.norm(ca[k + b] - ca[k + a]) if k + a >= 0 and k + b < n else np.nan

    n = len(ca)
    fits = {"H": [], "E": []}
    more = {"H": [], "E": []}
    for k in range(n):
        d2, d3, d4 = between(k, -1, 1), between(k, -1, 2), between(k, -1, 3)
        tau = alpha = np.nan
        if 0 < k < n - 1:
            tau = np.degrees(angle(ca[k - 1], ca[k], ca[k + 1]))
        if 0 < k < n - 2:
            alpha = np.degrees(dihedral(*ca[k - 1 : k + 3]))
        fits["H"].append(
            (4.8 <= d3 <= 5.8 and 5.8 <= d4 <= 7.0) or (77 <= tau <= 101 and 30 <= alpha <= 70)
        )
        more["H"].append(4.8 <= d3 <= 5.8 or 77 <= tau <= 101)
        fits["E"].append(
            (6.1 <= d2 <= 7.3 and 9.0 <= d3 <= 10.8 and 11.3 <= d4 <= 13.5)
            or (110 <= tau <= 138 and (alpha >= 145 or alpha <= -125))
        )
        more["E"].append(9.0 <= d3 <= 10.8)
    codes = np.full(n, LOOP)
    for letter, code in (("H", HELIX), ("E", STRAND)):
        start = 0
        for k in range(n + 1):
            if k < n and fits[letter][k]:
                continue
            size = k - start
            near = sum(
                4.2 <= np.linalg.norm(ca[i] - ca[j]) <= 5.2
                for i in range(start, k)
                for j in range(n)
            )
            if size >= 5 or (letter == "E" and (size == 4 or (size == 3 and near >= 5))):
                first = start - 1 if start > 0 and more[letter][start - 1] else start
                last = k + 1 if k < n and more[letter][k] else k
                codes[first:last] = code
            start = k + 1
    return codes


@pytest.mark.parametrize("seed", range(6))
def test_psea_follows_the_published_rules(seed):
    ca = irregular(seed)[:, CA]
    codes = psea(ca)
    np.testing.assert_array_equal(codes, psea_by_residue(ca))
    assert STRAND in codes


@pytest.mark.parametrize("seed", range(3))
def test_psea_agrees_with_biotite(seed):
    structure = pytest.importorskip("biotite.structure")
    ca = irregular(seed + 10, 150)[:, CA]
    atoms = structure.AtomArray(len(ca))
    atoms.coord = ca.astype(np.float32)
    atoms.atom_name[:], atoms.res_name[:], atoms.chain_id[:] = "CA", "ALA", "A"
    atoms.res_id = np.arange(1, len(ca) + 1)
    theirs = ["cab".index(code) for code in structure.annotate_sse(atoms)]
    np.testing.assert_array_equal(psea(ca), theirs)


def test_codes_do_not_depend_on_the_place():
    coords, joined = sheet(-139, 135, -1, -2)
    np.testing.assert_array_equal(dssp(moved(coords), joined), dssp(coords, joined))
    x = irregular(3)
    np.testing.assert_array_equal(psea(moved(x)[:, CA]), psea(x[:, CA]))
    np.testing.assert_array_equal(dssp(moved(x)), dssp(x))


def test_pieces_of_a_broken_chain_are_read_apart():
    one, other = ideal(14, -63, -42), moved(irregular(2, 30))
    joined = np.ones(43, bool)
    joined[13] = False
    both = np.concatenate([one, other])
    expected = np.concatenate([psea(one[:, CA]), psea(other[:, CA])])
    np.testing.assert_array_equal(psea(both[:, CA], joined), expected)
    np.testing.assert_array_equal(dssp(both, joined), np.concatenate([dssp(one), dssp(other)]))

    helix = ideal(16, -63, -42)
    joined = np.arange(15) % 4 != 3  # nothing is left that is long enough
    assert not psea(helix[:, CA], joined).any()
    assert not dssp(helix, joined).any()


def test_a_hydrogen_bond_needs_its_hydrogen():
    helix = ideal(12, -63, -42)
    bond = ss.hydrogen_bonds(helix)
    np.testing.assert_array_equal(np.argwhere(bond), [(k, k - 4) for k in range(4, 12)])
    donors = np.arange(12) != 6  # a proline
    np.testing.assert_array_equal(np.argwhere(ss.hydrogen_bonds(helix, donors=donors))[:, 0],
                                  [4, 5, 7, 8, 9, 10, 11])  # fmt: skip
    assert not ss.hydrogen_bonds(helix, joined=np.arange(11) != 5)[6].any()


def test_hydrogen_bonds_by_the_formula_of_kabsch_and_sander():
    x = irregular(4, 30)
    bond = ss.hydrogen_bonds(x)
    for i, j in np.random.default_rng(0).integers(1, 30, (300, 2)):
        h = x[i, N] + (x[i - 1, C] - x[i - 1, O]) / np.linalg.norm(x[i - 1, C] - x[i - 1, O])
        r = [np.linalg.norm(p - q) for p, q in ((x[i, N], x[j, O]), (h, x[j, C]), (h, x[j, O]),
                                                (x[i, N], x[j, C]))]  # fmt: skip
        energy = 332 * 0.42 * 0.20 * (1 / r[0] + 1 / r[1] - 1 / r[2] - 1 / r[3])
        if j not in (i, i - 1):
            assert bond[i, j] == (energy < -0.5)


@pytest.mark.parametrize("length", range(6))
def test_short_chains_are_loop(length):
    x = ideal(max(length, 1), -63, -42)[:length]
    assert psea(x[:, CA]).tolist() == dssp(x).tolist() == [LOOP] * length


def test_runs():
    assert runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)).tolist() == [[0, 2], [3, 4], [6, 7]]
    assert len(runs(np.zeros(0, bool))) == len(runs(np.zeros(3, bool))) == 0
