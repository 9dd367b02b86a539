"""Synthetic folds: ideal geometry, the right hand, compact and free of clashes, of many kinds."""

from itertools import pairwise

import numpy as np
import pytest

from sciffusion.domains.protein import synthetic
from sciffusion.domains.protein.backbone import CA
from sciffusion.domains.protein.distributions import radius_of_gyration, ramachandran, usual_radius
from sciffusion.domains.protein.geometry import dihedral
from sciffusion.domains.protein.secondary import HELIX, STRAND, dssp, psea, runs
from sciffusion.domains.protein.synthetic import TOPOLOGIES, synthetic_folds
from sciffusion.domains.protein.validity import (
    ANGLES,
    BONDS,
    bond_angles,
    bond_lengths,
    clashing,
    left_handed,
    omegas,
)
from sciffusion.errors import InputError

N = 20


@pytest.fixture(scope="module")
def folds():
    return synthetic_folds(N, seed=11, workers=1)


def kinds(b):
    return set(TOPOLOGIES[b.cluster])


def test_names_and_sizes(folds):
    assert [b.name for b in folds] == [f"synthetic_{i:05d}" for i in range(N)]
    assert all(b.source == "synthetic" and 40 <= len(b) <= 80 for b in folds)
    assert all(b.joined.all() for b in folds)
    assert max(float(np.abs(b.coords.mean((0, 1))).max()) for b in folds) < 1e-9


def test_bonds_and_angles_are_ideal(folds):
    for b in folds:
        for name, values in bond_lengths(b).items():
            assert values == pytest.approx(np.full(len(values), BONDS[name]), abs=1e-9)
        for name, values in bond_angles(b).items():
            assert values == pytest.approx(np.full(len(values), ANGLES[name]), abs=1e-6)
        assert (np.abs(omegas(b)) > 170).all()


def test_nothing_clashes_and_all_are_compact(folds):
    for b in folds:
        assert not clashing(b).any()
        assert radius_of_gyration(b) < 1.25 * usual_radius(len(b))


def test_ramachandran(folds):
    """Positive phi is for turns and a few residues of loops; psi is that of alpha or of beta."""
    phi, psi = (np.concatenate(v) for v in zip(*map(ramachandran, folds), strict=True))
    assert (phi > 0).mean() < 0.08
    negative = phi < 0
    assert phi[negative].min() > -180
    assert phi[negative].max() < -35
    alpha = (psi > -80) & (psi < 30)
    beta = (psi > 90) | (psi < -170)
    assert (alpha | beta)[negative].all()


def axis(points):
    middle = points.mean(0)
    along = np.linalg.svd(points - middle)[2][0]
    return middle, along * np.sign(along @ (points[-1] - points[0]))


def test_helices_and_sheets_have_the_right_hand(folds):
    """No left-handed helix; neighbouring strands turn by a negative angle, as real ones do."""
    assert sum(map(left_handed, folds)) == 0
    twist = []
    for b in folds:
        ca = b.coords[:, CA]
        strands = [r for r in runs(psea(ca) == STRAND) if r[1] - r[0] >= 5]
        for (a, stop), (start, end) in pairwise(strands):
            if start - stop <= 5:
                (m, u), (n, v) = axis(ca[a:stop]), axis(ca[start:end])
                twist.append(np.degrees(dihedral(m + u, m, n, n - v)))
    assert len(twist) > 10
    assert -40 < np.median(twist) < -5
    assert np.mean(np.array(twist) < 0) > 0.9


def test_elements_are_what_the_topology_says(folds):
    """Read off hydrogen bonds by DSSP, which knows nothing of how they were built."""
    for b in folds:
        codes = dssp(b.coords)
        assert (HELIX in codes) == ("H" in kinds(b))
    sheets = [np.mean(dssp(b.coords) == STRAND) for b in folds if kinds(b) == {"E"}]
    helices = [np.mean(dssp(b.coords) == HELIX) for b in folds if kinds(b) == {"H"}]
    assert np.mean(sheets) > 0.35
    assert np.mean(helices) > 0.65


def test_variety(folds):
    assert len({b.cluster for b in folds}) >= 6
    assert {frozenset(kinds(b)) for b in folds} == {frozenset(k) for k in ("H", "E", "HE")}
    assert len({len(b) for b in folds}) > N // 3


def test_a_fold_follows_from_its_seed_and_number(folds):
    again = synthetic_folds(3, seed=11, workers=1)
    for a, b in zip(folds, again, strict=False):
        assert (a.coords == b.coords).all()
        assert a.cluster == b.cluster
    other = synthetic.fold(0, 12, (40, 80))
    assert len(other) != len(folds[0]) or not np.allclose(other.coords, folds[0].coords)


@pytest.mark.parametrize("length", [synthetic.SHORTEST, synthetic.LONGEST])
def test_the_ends_of_the_range_can_be_built(length):
    assert [len(b) for b in synthetic_folds(2, 0, (length, length), workers=1)] == [length] * 2


@pytest.mark.parametrize("lengths", [(10, 20), (60, 50), (80, 400)])
def test_lengths_out_of_range_are_refused(lengths):
    with pytest.raises(InputError, match="within 30 and 100"):
        synthetic_folds(1, 0, lengths)
