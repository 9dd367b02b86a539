import numpy as np
import pytest

from sciffusion.errors import InputError
from sciffusion.metrics.bootstrap import bootstrap_interval, mean_interval
from sciffusion.metrics.frechet import Moments, frechet_of_moments, moments


def covers(interval, truth):
    return interval.low <= truth <= interval.high


def test_covers_a_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [
        covers(mean_interval(rng.exponential(size=80), resamples=400, level=0.9, seed=s), 1.0)
        for s in range(400)
    ]
    assert np.mean(hits) == pytest.approx(0.9, abs=0.05)  # 3 standard errors


def test_has_the_width_that_theory_gives_a_mean():
    x = np.random.default_rng(1).normal(size=500)
    interval = mean_interval(x, resamples=4000)
    width = 2 * 1.959964 * x.std() / np.sqrt(len(x))
    assert interval.high - interval.low == pytest.approx(width, rel=0.05)
    assert interval.value == pytest.approx(x.mean())


def test_a_share_stays_between_none_and_all():
    hits = np.array([1.0] * 58 + [0.0] * 2)
    interval = mean_interval(hits, resamples=4000)
    assert 0.9 < interval.low < interval.value < interval.high <= 1.002


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_covers_the_frechet_distance_expected_at_this_n(shift):
    """Plain percentiles do not at shift 0: every replicate is biased upward by tr(C)/n."""
    d, n = 6, 40
    reference = Moments(np.zeros(d), np.eye(d), 10**9)
    rng = np.random.default_rng(2)

    def draw():
        return rng.normal(size=(n, d)) + shift / np.sqrt(d)

    def figure(x):
        return frechet_of_moments(moments(x), reference)

    truth = np.mean([figure(draw()) for _ in range(1000)])
    hits, plain = [], []
    for s in range(100):
        x = draw()
        replicates = []

        def statistic(rows, x=x, replicates=replicates):
            replicates.append(figure(x[rows]))
            return replicates[-1]

        hits.append(covers(bootstrap_interval(statistic, n, resamples=60, seed=s), truth))
        plain.append(np.quantile(replicates[:60], 0.025) <= truth)
    assert np.mean(hits) >= 0.88
    if shift == 0:
        assert np.mean(plain) < 0.5


def test_is_seeded_and_tells_its_progress():
    seen = []

    def progress(rows):
        for row in rows:
            seen.append(1)
            yield row

    x = np.arange(30.0)
    first = bootstrap_interval(lambda i: x[i].mean(), 30, 50, seed=3, progress=progress)
    assert len(seen) == 50
    assert first == mean_interval(x, 50, seed=3)
    assert first != mean_interval(x, 50, seed=4)


def test_refuses_nothing_to_resample():
    with pytest.raises(InputError, match="0 rows"):
        mean_interval(np.zeros(0))
