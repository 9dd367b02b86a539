import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from sciffusion.errors import InputError
from sciffusion.metrics.js import js_divergence


def test_is_the_square_of_scipys_distance_in_bits():
    rng = np.random.default_rng(0)
    p, q = rng.integers(0, 5, size=(2, 30))
    assert js_divergence(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2, rel=1e-12)


def test_runs_from_no_bit_to_one():
    p, q = np.array([[3, 1], [0, 0]]), np.array([[0, 0], [7, 2]])
    assert js_divergence(p, p * 10) == pytest.approx(0, abs=1e-15)  # counts are normalised
    assert js_divergence(p, q) == pytest.approx(1)
    assert js_divergence(p, q + p) == js_divergence(q + p, p)


def test_floor_of_equal_laws_is_the_stated_bias():
    rng = np.random.default_rng(1)
    bins, n, m = 40, 2000, 1000
    law = np.full(bins, 1 / bins)
    mean = np.mean(
        [js_divergence(rng.multinomial(n, law), rng.multinomial(m, law)) for _ in range(200)]
    )
    assert mean == pytest.approx((bins - 1) * (1 / n + 1 / m) / (8 * np.log(2)), rel=0.1)


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        ([1, 2], [1, 2, 3], "same bins"),
        ([1, -2], [1, 2], "first histogram: a bin is negative"),
        ([1, 2], [0, 0], "second histogram: all bins are empty"),
    ],
)
def test_names_what_is_wrong(p, q, message):
    with pytest.raises(InputError, match=message):
        js_divergence(np.array(p), np.array(q))
