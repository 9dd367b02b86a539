import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel

from sciffusion.errors import InputError
from sciffusion.metrics import distances
from sciffusion.metrics import kid as module
from sciffusion.metrics.kid import kid, kid_of_resamples, kid_of_subsets


def naive(x, y):
    def mean_off_diagonal(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    kernel = lambda a, b: polynomial_kernel(a, b, degree=3, coef0=1)  # noqa: E731, gamma = 1/d
    return (
        mean_off_diagonal(kernel(x, x)) + mean_off_diagonal(kernel(y, y)) - 2 * kernel(x, y).mean()
    )


@pytest.fixture
def sets():
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 6)), rng.normal(size=(55, 6)) + 0.5


def test_agrees_with_all_pairs_by_sklearn(sets):
    assert kid(*sets) == pytest.approx(naive(*sets), rel=1e-10)


def test_blocks_change_nothing(sets, monkeypatch):
    whole = kid(*sets)
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 7 * 55)
    assert distances.BLOCK_ENTRIES != module.BLOCK_ENTRIES
    assert kid(*sets) == pytest.approx(whole, rel=1e-12)


def test_is_unbiased_at_small_n():
    rng = np.random.default_rng(1)
    figures = [kid(rng.normal(size=(8, 4)), rng.normal(size=(9, 4))) for _ in range(2000)]
    error = np.std(figures) / np.sqrt(len(figures))
    assert abs(np.mean(figures)) < 4 * error
    # and the error is small enough to see the bias that counting x = x' would bring
    assert 4 * error < (np.mean((4 / 4 + 1) ** 3) - 1) / 9


def test_counts_stand_for_repeated_rows(sets):
    x, y = sets
    pick = np.random.default_rng(2).integers(len(x), size=(3, len(x)))
    counts = np.stack([np.bincount(row, minlength=len(x)) for row in pick])
    expected = [naive(x[row], y) for row in pick]
    np.testing.assert_allclose(kid_of_resamples(x, y, counts), expected, rtol=1e-9)


def test_subsets_scatter_about_the_whole(sets):
    figures = kid_of_subsets(*sets, size=20, count=300, seed=0)
    assert figures.mean() == pytest.approx(kid(*sets), abs=4 * figures.std() / np.sqrt(300))
    np.testing.assert_array_equal(figures, kid_of_subsets(*sets, size=20, count=300, seed=0))
    with pytest.raises(InputError, match="KID subsets of 41"):
        kid_of_subsets(*sets, size=41)
