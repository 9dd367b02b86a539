from dataclasses import replace

import numpy as np
import pytest

from sciffusion.domains.protein import distributions as dist
from sciffusion.domains.protein import validity
from sciffusion.domains.protein.backbone import CA, Backbone
from sciffusion.domains.protein.geometry import build
from sciffusion.domains.protein.measures import FIGURES, measure, stacked


def chain(length=60, seed=0, omega=180.0):
    rng = np.random.default_rng(seed)
    basins = np.array([(-63, -42), (-120, 130), (-75, 150)], float)
    phi, psi = np.radians(basins[rng.integers(3, size=length)] + rng.normal(0, 8, (length, 2))).T
    return Backbone.of(build(phi, psi, np.full(length, np.radians(omega))))


def helix(length=30):
    return Backbone.of(build(*(np.radians(np.full(length, a)) for a in (-63.0, -42.0, 180.0))))


def changed(b, change):
    return replace(b, coords=change(b.coords))


def figure(name, samples, references=None):
    found = next(f for f in FIGURES if f.name == name)
    rows, others = (
        stacked([measure(b) for b in part])[found.key] for part in (samples, references or samples)
    )
    return found.of(rows, others)


def test_ideal_geometry_has_no_fault():
    b = chain(40)
    for f in FIGURES:
        if "RMS" in f.name:
            assert figure(f.name, [b]) == pytest.approx(0, abs=1e-6), f.name
    assert figure("CA-CA valid", [b]) == 1
    assert figure("broken peptide bonds", [b]) == figure("omega twisted", [b]) == 0


def test_ca_distances_are_judged_from_both_sides():
    b = chain()
    for scale in (0.96, 1.04):
        assert figure("CA-CA valid", [changed(b, lambda x, s=scale: x * s)]) == 0
    cis = chain(omega=0.0)
    assert figure("CA-CA valid", [cis]) == 0
    assert figure("omega cis", [cis]) == 1
    apart = validity.ca_distances(cis)[0]  # real angles are wider about a cis bond
    assert figure("CA-CA cis", [changed(cis, lambda x: x * 2.97 / apart)]) == 1
    twisted = chain(omega=100.0)
    assert figure("omega twisted", [twisted]) == 1
    assert figure("omega cis", [twisted]) == 0
    assert figure("omega of trans bonds, RMS off 180", [chain(omega=170.0)]) == pytest.approx(10)


def test_each_bond_and_angle_sees_its_own_fault():
    b = chain()
    longer = b.coords.copy()
    longer[:, 3] += 0.1 * (longer[:, 3] - longer[:, 2])  # C=O by a tenth
    b = replace(b, coords=longer)
    assert figure("C-O bond, RMS off 1.229 A", [b]) == pytest.approx(0.1229, abs=1e-4)
    assert figure("C-N bond, RMS off 1.336 A", [b]) == pytest.approx(0, abs=1e-6)
    assert figure("CA-C-O angle, RMS off 120.1", [b]) == pytest.approx(0, abs=1e-4)


def test_a_torn_chain_cannot_hide_and_missing_residues_are_no_fault():
    b = chain(40)
    shift = np.repeat([[0.0], [15.0]], 20, 0)[:, None]
    torn = changed(b, lambda x: x + shift)
    assert figure("broken peptide bonds", [torn]) == pytest.approx(1 / 39)
    assert figure("CA-CA valid", [torn]) == pytest.approx(38 / 39)
    gap = replace(torn, number=b.number + np.repeat([0, 5], 20))
    assert validity.expected_links(gap).sum() == 38
    assert figure("CA-CA valid", [gap]) == 1
    assert figure("broken peptide bonds", [gap]) == 0
    two = Backbone.of(torn.coords, lengths=[20, 20])
    assert figure("CA-CA valid", [two]) == 1
    pieces = [Backbone.of(torn.coords[k]) for k in (slice(20), slice(20, None))]
    for of in (dist.ca_histogram, dist.ramachandran_histogram):
        np.testing.assert_array_equal(of(two), sum(of(p) for p in pieces))


def clashing_by_pairs(b):
    found = np.zeros(len(b), bool)
    for i in range(len(b)):
        for j in range(i):
            apart = i - j if b.chain[i] == b.chain[j] else 99
            atoms = np.linalg.norm(b.coords[i][:, None] - b.coords[j], axis=-1).min()
            ca = np.linalg.norm(b.coords[i, CA] - b.coords[j, CA])
            if (apart >= 3 and ca < 3.0) or (apart >= 2 and atoms < 2.4):
                found[[i, j]] = True
    return found


@pytest.mark.parametrize("scale", [0.4, 0.6, 1.0])
def test_clashes_are_those_of_all_pairs(scale):
    x = chain(50, seed=3).coords * scale
    for b in (Backbone.of(x), Backbone.of(x, lengths=[25, 25])):
        np.testing.assert_array_equal(validity.clashing(b), clashing_by_pairs(b))


def test_chains_that_overlap_clash_where_one_chain_would_not():
    x = helix(12).coords
    both = np.concatenate([x, x + np.array([0.5, 0, 0])])
    assert validity.clashing(Backbone.of(both, lengths=[12, 12])).all()
    assert not validity.clashing(helix(12)).any()


def test_left_handed_helices_are_those_of_the_mirror():
    b = helix(30)
    assert validity.left_handed(b) == 0
    mirror = changed(b, lambda x: x * [1, 1, -1])
    assert validity.left_handed(mirror) == 30 - 3 - 3
    assert figure("left-handed helix", [b, mirror]) == pytest.approx(24 / 60)
    assert validity.left_handed(helix(6)) == 0


def test_maps_hold_every_inner_residue_and_turn_in_the_mirror():
    b = chain(40)
    assert dist.ca_histogram(b).sum() == 40 - 3
    assert dist.ramachandran_histogram(b).sum() == 40 - 2
    mirror = changed(b, lambda x: x * [-1, 1, 1])
    np.testing.assert_array_equal(dist.ca_histogram(mirror), dist.ca_histogram(b)[:, ::-1])
    np.testing.assert_array_equal(
        dist.ramachandran_histogram(mirror), dist.ramachandran_histogram(b)[::-1, ::-1]
    )
    collapsed = changed(b, lambda x: x * [1, 1, 1e-3])  # angles far beyond the bins count too
    assert dist.ca_histogram(collapsed).sum() == 37


def test_ramachandran_returns_the_torsions_that_built_the_chain():
    rng = np.random.default_rng(0)
    phi, psi = rng.uniform(-np.pi, np.pi, (2, 20))
    found = dist.ramachandran(Backbone.of(build(phi, psi, np.full(20, np.pi))))
    np.testing.assert_allclose(np.radians(found), [phi[1:-1], psi[1:-1]], atol=1e-6)


def test_divergences_tell_a_mirror_and_a_helix_from_chains_at_random():
    sets = [[chain(60, s) for s in range(k, k + 20)] for k in (0, 100)]
    mirror = [changed(b, lambda x: x * [1, 1, -1]) for b in sets[0]]
    for name in ("JS, CA angle and dihedral", "JS, Ramachandran"):
        assert figure(name, sets[0], sets[0]) == 0
        floor = figure(name, *sets)
        assert 0 < floor < 0.15
        assert figure(name, mirror, sets[1]) > 0.5
        assert figure(name, [helix()], sets[1]) > 0.4


def test_size_and_topology():
    b = chain(50)
    assert dist.radius_of_gyration(changed(b, lambda x: 2 * x + 5)) == pytest.approx(
        2 * dist.radius_of_gyration(b)
    )
    ca = helix(40).coords[:, CA]
    pairs = [(i, j) for j in range(40) for i in range(j - 2) if np.linalg.norm(ca[i] - ca[j]) < 8]
    expected = np.mean([j - i for i, j in pairs]) / 40
    assert dist.relative_contact_order(helix(40)) == pytest.approx(expected)
    line = np.zeros((30, 4, 3)) + np.arange(30)[:, None, None] * [3.8, 0, 0]
    assert dist.relative_contact_order(Backbone.of(line)) == 0
    assert dist.usual_radius(100) == pytest.approx(12.66, abs=0.01)


def test_contents_are_compared_as_means_over_structures():
    assert figure("helix share off, DSSP", [helix(40)]) == 0
    alone = figure("helix share off, P-SEA", [helix(40)], [chain(60, 7)])
    assert 0.5 < alone <= 1
    told = next(f for f in FIGURES if f.name == "helix share off, P-SEA").told(
        np.array([0.5, 0.3]), np.array([0.2])
    )
    assert told == "0.4, references 0.2"


def test_structures_without_inner_residues_are_measured_too():
    for length in (1, 2, 3):
        found = stacked([measure(Backbone.of(helix(length).coords))])
        assert all(np.isfinite(v).all() for v in found.values())
    assert figure("JS, CA angle and dihedral", [helix(3)], [helix(30)]) == 1
