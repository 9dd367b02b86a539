import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sciffusion.errors import InputError
from sciffusion.metrics import distances
from sciffusion.metrics.distances import kth_neighbour_squared, nearest
from sciffusion.metrics.prdc import prdc


def naive(real, fake, k):
    """The four definitions, written as in the papers."""
    across = cdist(real, fake)
    real_r = np.sort(cdist(real, real), axis=1)[:, k]
    fake_r = np.sort(cdist(fake, fake), axis=1)[:, k]
    return (
        (across <= real_r[:, None]).any(0).mean(),
        (across <= fake_r[None]).any(1).mean(),
        (across <= real_r[:, None]).sum(0).mean() / k,
        (across.min(1) <= real_r).mean(),
    )


def figures(p):
    return p.precision, p.recall, p.density, p.coverage


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return rng.normal(size=(80, 3)), rng.normal(size=(60, 3)) * 0.7 + 0.4


@pytest.mark.parametrize("block", [1 << 22, 80 * 7, 1])
def test_agrees_with_the_definitions_in_any_block(sets, block, monkeypatch):
    monkeypatch.setattr(distances, "BLOCK_ENTRIES", block)
    assert figures(prdc(*sets)) == pytest.approx(naive(*sets, 5))


def test_equal_laws_reach_the_known_density_and_coverage():
    """Naeem et al. 2020: E density = 1, E coverage = 1 - prod_{i=1..k} (M - i)/(M + N - i)."""
    rng = np.random.default_rng(1)
    m, n, k = 50, 70, 3
    got = np.array(
        [figures(prdc(rng.normal(size=(m, 2)), rng.normal(size=(n, 2)), k)) for _ in range(300)]
    )
    i = np.arange(1, k + 1)
    expected = 1 - np.prod((m - i) / (m + n - i))
    error = got.std(0) / np.sqrt(len(got))
    assert abs(got[:, 2].mean() - 1) < 4 * error[2]
    assert abs(got[:, 3].mean() - expected) < 4 * error[3]


def test_a_lost_mode_costs_variety_and_an_invented_one_fidelity():
    rng = np.random.default_rng(2)

    def mode(side):
        return rng.normal(size=(200, 2)) + np.array([side, 0])

    left, right = mode(-50), mode(50)
    both = np.concatenate([left, right])
    lost = prdc(both, mode(-50))
    assert lost.precision > 0.9
    assert lost.recall == pytest.approx(0.5, abs=0.1)
    assert lost.coverage == pytest.approx(0.5, abs=0.1)
    invented = prdc(left, np.concatenate([mode(-50), right]))
    assert invented.recall > 0.9
    assert invented.precision == pytest.approx(0.5, abs=0.1)
    assert invented.density == pytest.approx(0.5, abs=0.15)


def test_precision_and_recall_trade_places_with_the_sets(sets):
    forth, back = prdc(*sets), prdc(*sets[::-1])
    assert (forth.precision, forth.recall) == (back.recall, back.precision)


def test_needs_more_rows_than_neighbours(sets):
    with pytest.raises(InputError, match="5 rows"):
        prdc(sets[0], sets[1][:5])
    with pytest.raises(InputError, match="k = 0"):
        prdc(*sets, k=0)


def test_nearest_and_neighbours_agree_with_all_pairs_far_from_the_origin():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(30, 4)) + 1e5, rng.normal(size=(50, 4)) + 1e5
    b[7] = a[3]
    distance, index = nearest(a, b)
    np.testing.assert_array_equal(index, cdist(a, b).argmin(1))
    np.testing.assert_allclose(distance, cdist(a, b).min(1))
    assert distance[3] == 0  # a copy is at no distance at all
    third = np.sort(cdist(a, a), axis=1)[:, 3]
    np.testing.assert_allclose(kth_neighbour_squared(a, 3), third**2, rtol=1e-6)
