import numpy as np
import pytest
from scipy.linalg import sqrtm

from sciffusion.errors import InputError
from sciffusion.metrics.frechet import (
    MomentAccumulator,
    Moments,
    frechet_distance,
    frechet_of_moments,
    moments,
)


def random_cov(rng, d, rank=None):
    a = rng.normal(size=(d, rank or d))
    return a @ a.T


def test_agrees_with_the_textbook_formula_by_scipy():
    rng = np.random.default_rng(0)
    c1, c2 = random_cov(rng, 6), random_cov(rng, 6)
    m1, m2 = rng.normal(size=(2, 6))
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    got = frechet_of_moments(Moments(m1, c1, 10), Moments(m2, c2, 10))
    assert got == pytest.approx(expected, rel=1e-9)


def test_of_diagonal_gaussians_is_the_distance_of_means_and_deviations():
    s1, s2 = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 4.0])
    m1, m2 = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    expected = ((m1 - m2) ** 2).sum() + ((s1 - s2) ** 2).sum()
    got = frechet_of_moments(Moments(m1, np.diag(s1**2), 10), Moments(m2, np.diag(s2**2), 10))
    assert got == pytest.approx(expected, rel=1e-12)


def test_samples_of_known_gaussians_reach_their_distance():
    rng = np.random.default_rng(1)
    a = rng.normal(size=(200_000, 3)) * [1.0, 2.0, 3.0]
    b = rng.normal(size=(200_000, 3)) * [2.0, 2.0, 1.0] + [0.0, 1.0, 0.0]
    assert frechet_distance(a, b) == pytest.approx(1 + 1 + 4, rel=0.02)


def test_is_zero_of_a_set_with_itself_and_symmetric_when_covariances_are_singular():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(5, 40)), rng.normal(size=(7, 40)) + 1  # far fewer rows than columns
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    # orthogonal supports: nothing of one deviation covers the other
    p, q = np.diag([1.0, 4.0, 0, 0]), np.diag([0, 0, 9.0, 1.0])
    zero = np.zeros(4)
    assert frechet_of_moments(Moments(zero, p, 9), Moments(zero, q, 9)) == pytest.approx(15)


def test_does_not_change_under_rotation_and_scales_with_the_square():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(50, 5)), rng.normal(size=(60, 5)) * 2 + 1
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    d = frechet_distance(a, b)
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(d, rel=1e-9)
    assert frechet_distance(3 * a, 3 * b) == pytest.approx(9 * d, rel=1e-9)


def test_batches_give_the_moments_of_the_whole_despite_a_large_offset():
    x = np.random.default_rng(4).normal(size=(1000, 4)) + 1e6
    accumulator = MomentAccumulator()
    for batch in np.split(x, [1, 1, 300, 777]):  # one row, none, and uneven ones
        accumulator.update(batch.astype(np.float64))
    got = accumulator.moments()
    np.testing.assert_allclose(got.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(got.cov, np.cov(x, rowvar=False), rtol=1e-8, atol=1e-10)
    assert got.n == 1000


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((1, 3)), np.zeros((5, 3)), "first set: 1 rows"),
        (np.zeros((5, 3)), np.zeros((5, 4)), "3 columns"),
        (np.zeros((5, 3)), np.full((5, 3), np.nan), "second set: row 0"),
        (np.zeros((5, 3, 2)), np.zeros((5, 3)), "must be"),
    ],
)
def test_names_what_is_wrong(a, b, message):
    with pytest.raises(InputError, match=message) as caught:
        frechet_distance(a, b)
    assert "\n" not in str(caught.value)


def test_a_covariance_needs_two_rows():
    with pytest.raises(InputError, match="2 rows"):
        moments(np.zeros((1, 3)))
