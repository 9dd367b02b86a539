import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from sciffusion.errors import InputError
from sciffusion.viz.molecules import (
    CPK,
    SYMBOLS,
    ensemble_picture,
    frame,
    model_colours,
    molecule_picture,
    superpose,
    visible,
)
from sciffusion.viz.raster import Raster

RED, GREEN, BLUE = np.eye(3)


def molecule(smiles, conformers=1):
    """(coords (K, N, 3), z, bonds) as RDKit embeds it."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMultipleConfs(mol, conformers, randomSeed=3)
    coords = np.stack([c.GetPositions() for c in mol.GetConformers()])
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]
    return coords, np.array([a.GetAtomicNum() for a in mol.GetAtoms()]), np.array(bonds)


def rotations(rng, n):
    q, _ = np.linalg.qr(rng.normal(size=(n, 3, 3)))
    return q * np.linalg.det(q)[:, None, None]


def volume(p):
    """Signed, of the first four points."""
    return np.linalg.det(p[..., :3, :] - p[..., 3:4, :])


def pixel(picture, x, y, scale):
    """RGB at a place in Angstrom from the middle, and how solid it is."""
    place = picture.width / 2 + x * scale, picture.height / 2 - y * scale
    *rgb, alpha = picture.getpixel(tuple(int(v) for v in place))
    return np.array(rgb), alpha


def test_x_goes_right_y_goes_up_and_what_is_near_hides_what_is_far():
    raster = Raster(100, 80, 10)
    raster.sphere([3, 0, 0], 0.8, RED)
    raster.sphere([0, 3, 0], 0.8, GREEN)
    raster.sphere([0, 0, 2], 0.8, BLUE)
    raster.sphere([0, 0, -2], 0.8, RED)
    raster.stick([-4, -3, 1], [-2, -3, 1], 0.4, (GREEN, BLUE))
    raster.stick([-4, -3, 0], [-2, -3, 0], 0.4, (RED, RED))
    picture = raster.image()
    for (x, y), channel in {
        (3, 0): 0, (0, 3): 1, (0, 0): 2, (-3.5, -3): 1, (-2.5, -3): 2,
    }.items():  # fmt: skip
        rgb, alpha = pixel(picture, x, y, 10)
        assert rgb.argmax() == channel
        assert alpha > 100
    assert pixel(picture, -3, 3, 10)[1] == 0


def test_a_ball_and_a_stick_cover_the_area_that_geometry_says():
    ball, stick = Raster(200, 200, 40), Raster(200, 200, 40)
    ball.sphere([0, 0, 0], 2, RED)
    tilt = np.array([1.2, 0, 1.6])  # seen foreshortened: 2.4 of its 4 Angstrom
    stick.stick(-tilt, tilt, 0.5, (RED, RED))
    solid = [
        (np.asarray(r.image())[..., :3].argmax(-1) == 0) & (np.asarray(r.image())[..., 3] > 127)
        for r in (ball, stick)
    ]
    areas = [np.asarray(s).sum() / 40**2 for s in solid]
    # outlines lie outside, in grey, and are not counted; a stick shows a round end, of half axes
    # 0.5 and 0.5 * cos(tilt) = 0.4: as much as is cut off at the other end
    np.testing.assert_allclose(areas, [4 * np.pi, 2.4], rtol=0.06)


def test_far_parts_fade_and_the_ground_is_clear():
    raster = Raster(100, 60, 10)
    raster.sphere([-2, 0, 4], 1, RED)
    raster.sphere([2, 0, -4], 1, RED)
    picture = raster.image()
    near, far = pixel(picture, -2, 0, 10)[1], pixel(picture, 2, 0, 10)[1]
    assert near > far > 60
    assert Raster(4, 4, 1).image().getextrema()[3] == (0, 0)


def test_a_frame_turns_and_never_mirrors():
    rng = np.random.default_rng(0)
    for shape in (5, 3, 1), (1, 4, 2), (1, 1, 6):
        points = rng.normal(size=(30, 3)) * shape @ rotations(rng, 1)[0] + 7
        seen = frame(points)
        placed = seen.place(points)
        sides = np.ptp(placed, axis=0)
        assert sides[0] >= sides[1] >= sides[2]
        np.testing.assert_allclose(volume(placed), volume(points))
        np.testing.assert_allclose(placed.max(0) + placed.min(0), 0, atol=1e-9)
        scale = seen.scale(300, 200)
        assert (np.abs(placed[:, :2]).max(0) * scale < (150, 100)).all()


def test_rigid_copies_superpose_exactly():
    rng = np.random.default_rng(1)
    coords, z, _ = molecule("CC(=O)Nc1ccc(O)cc1")
    copies = coords @ rotations(rng, 6) + rng.normal(size=(6, 1, 3)) * 20
    laid = superpose(copies, z > 1)
    np.testing.assert_allclose(laid, laid[:1].repeat(6, 0), atol=1e-6)


def test_superposition_moves_rigidly_and_keeps_handedness():
    coords, z, _ = molecule("C[C@H](N)C(=O)O", 4)
    mixed = np.concatenate([coords, -coords])  # and the mirror images
    laid = superpose(mixed, z > 1)

    def distances(x):
        return np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)

    np.testing.assert_allclose(distances(laid), distances(mixed), atol=1e-6)
    np.testing.assert_allclose(volume(laid), volume(mixed))


def test_a_rigid_core_lies_tighter_than_by_least_squares():
    coords, z, _ = molecule("c1ccc2ccccc2c1CCCCCCO", 12)
    ring = np.arange(10)
    laid = {n: superpose(coords, z > 1, rounds=n) for n in (1, 20)}
    spread = {n: x[:, ring].std(0).mean() for n, x in laid.items()}
    assert spread[20] < 0.3 * spread[1]


@pytest.mark.parametrize("smiles", ["CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "C[N+](C)(C)CCO"])
def test_hydrogens_on_carbon_are_left_out(smiles):
    _, z, bonds = molecule(smiles)
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    plain = {i for (i,) in mol.GetSubstructMatches(Chem.MolFromSmarts("[#1;$([#1]-[#6])]"))}
    assert set(np.flatnonzero(~visible(z, bonds))) == plain


@pytest.mark.parametrize("smiles", ["O", "C", "[H][H]", "CCO", "[Na+].[Cl-]"])
def test_the_smallest_molecules_are_drawn_whole(smiles):
    coords, z, bonds = molecule(smiles)
    assert visible(z, bonds).all()
    assert molecule_picture(coords[0], z, bonds).getextrema()[3][1] > 200


def test_atoms_show_their_colour_where_they_are():
    coords, z, bonds = molecule("CN1C=NC2=C1C(=O)N(C(=O)N2C)C")  # flat: nothing hides a heavy atom
    flat = frame(coords[0][visible(z, bonds)])
    picture = molecule_picture(coords[0], z, bonds, (300, 240))
    scale = flat.scale(300, 240)
    for n, (x, y, _) in zip(z, flat.place(coords[0]), strict=True):
        rgb, alpha = pixel(picture, x, y, scale)
        if n > 1:
            assert alpha > 100
        if n in (7, 8):
            assert rgb.argmax() == {7: 2, 8: 0}[n]


def test_conformers_have_colours_of_their_own():
    coords, z, bonds = molecule("CCCCCC", 3)
    colours = model_colours(3)
    assert len(set(colours)) == 3
    assert model_colours(1) == [CPK["C"]]
    drawn = np.asarray(ensemble_picture(coords, z, bonds, colours=["#ff0000"] * 3))
    other = np.asarray(ensemble_picture(coords, z, bonds, colours=["#0000ff"] * 3))
    np.testing.assert_array_equal(drawn[..., 3], other[..., 3])
    np.testing.assert_array_equal(drawn[..., [2, 1, 0]], other[..., :3])


def test_what_cannot_be_drawn_is_refused():
    coords, z, bonds = molecule("CCO")
    with pytest.raises(InputError, match="not finite"):
        molecule_picture(np.full_like(coords[0], np.nan), z, bonds)
    with pytest.raises(InputError, match="for 8 atoms"):
        molecule_picture(coords[0], z[:-1], bonds)
    with pytest.raises(InputError, match="number of 119"):
        molecule_picture(coords[0], np.where(z == 8, 119, z), bonds)
    with pytest.raises(InputError, match="a bond"):
        molecule_picture(coords[0], z, bonds + 5)
    with pytest.raises(InputError, match="at least one atom"):
        molecule_picture(np.zeros((0, 3)), z[:0], bonds[:0])


def test_symbols_are_those_of_the_periodic_table():
    table = Chem.GetPeriodicTable()
    assert [table.GetElementSymbol(n) for n in range(119)] == list(SYMBOLS)
