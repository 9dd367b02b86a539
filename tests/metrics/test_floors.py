import numpy as np
import pytest

from sciffusion.errors import InputError
from sciffusion.metrics.floors import real_floor
from sciffusion.metrics.frechet import frechet_distance


def test_falls_as_n_grows_and_is_what_a_perfect_generator_scores():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(4000, 5)), rng.normal(size=(1000, 5))
    few = real_floor(frechet_distance, train, test, n=50, repeats=20)
    many = real_floor(frechet_distance, train, test, n=1000, repeats=20)
    assert few > 3 * many
    perfect = np.mean([frechet_distance(rng.normal(size=(50, 5)), test) for _ in range(100)])
    assert few == pytest.approx(perfect, rel=0.25)


def test_subsets_have_n_different_training_rows():
    sizes = []

    def metric(subset, test):
        sizes.append(len(np.unique(subset)))
        return 0.0

    real_floor(metric, np.arange(20)[:, None], np.zeros((3, 1)), n=12, repeats=4)
    assert sizes == [12] * 4


def test_refuses_an_n_that_training_data_cannot_match():
    with pytest.raises(InputError, match="n = 30 from 20 training rows"):
        real_floor(frechet_distance, np.zeros((20, 2)), np.zeros((5, 2)), n=30)
