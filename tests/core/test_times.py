"""Times: distributions against scipy's quantiles, strata, and grids that fall from 1 to 0."""

import pytest
import torch
from scipy import stats

from sciffusion.core.rng import Rng
from sciffusion.core.samplers import alphafold3
from sciffusion.core.schedules import EDM, VE, VP
from sciffusion.core.times import (
    BetaMixture,
    Discrete,
    Karras,
    LogitNormal,
    LogNormal,
    Quadratic,
    Stratified,
    Trailing,
    Uniform,
    UniformGrid,
    UniformLogSNR,
)

U = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)


def test_log_normal():
    s = EDM().sigma(LogNormal(-1.2, 1.2).quantile(U, EDM()))
    expected = torch.from_numpy(stats.norm(-1.2, 1.2).ppf(U.numpy()))
    assert torch.allclose(s.log(), expected, atol=1e-9)


def test_logit_normal():
    t = LogitNormal(0.3, 0.8).quantile(U, VP())
    assert torch.allclose(t.logit(), torch.from_numpy(stats.norm(0.3, 0.8).ppf(U.numpy())))


@pytest.mark.parametrize(
    "parts",
    [((0.98, 1.9, 1), (0.02, 1, 1)), ((1, 0.5, 0.5),), ((0.3, 5, 2), (0.7, 1.5, 8)), ((1, 1, 1),)],
)
def test_beta_mixture(parts):
    t = BetaMixture(parts).quantile(U, VP())
    cdf = sum(w * stats.beta(a, b).cdf((1 - t).numpy()) for w, a, b in parts)
    assert torch.allclose(torch.from_numpy(cdf), 1 - U, atol=1e-6)
    assert (t.diff() > 0).all()


def test_bad_mixtures_are_refused():
    with pytest.raises(ValueError, match="sum to 1"):
        BetaMixture(((0.5, 1, 1),))
    with pytest.raises(ValueError, match=r"a >= 0\.5"):
        BetaMixture(((1.0, 0.2, 1),))


def test_discrete_steps_are_equally_likely():
    t = Discrete(10).quantile((torch.arange(1000).double() + 0.5) / 1000, VP())
    values, counts = t.unique(return_counts=True)
    assert torch.allclose(values, torch.arange(1, 11).double() / 10)
    assert (counts == 100).all()


def test_strata_hold_one_draw_each_whatever_the_split():
    whole = Stratified(Uniform()).sample(Rng(0, torch.arange(64), step=7), VP())
    assert sorted((whole * 64).floor().tolist()) == list(range(64))
    parts = [
        Stratified(Uniform()).sample(Rng(0, torch.arange(a, a + 16), step=7, total=64), VP())
        for a in (0, 16, 32, 48)
    ]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, Stratified(Uniform()).sample(Rng(0, torch.arange(64), 8), VP()))


GRIDS = [UniformGrid(), Trailing(), Quadratic(), Karras(), UniformLogSNR()]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("steps", [1, 2, 3, 17, 50, 300])
def test_grids_fall_from_one_to_zero(grid, steps, schedule):
    t = grid(steps, schedule)
    assert t.shape == (steps + 1,)
    assert t.dtype == torch.float64
    assert float(t[0]) == 1
    assert float(t[-1]) == 0
    assert (t.diff() < 0).all()


def test_trailing_stays_on_the_table():
    t = Trailing(1000)(37, VP()) * 1000
    assert torch.allclose(t, t.round(), atol=1e-9)
    with pytest.raises(ValueError, match="fewer steps"):
        Trailing(10)(11, VP())
    with pytest.raises(ValueError, match="at least 1"):
        UniformGrid()(0, VP())


def test_karras_levels():
    """Eq. 5 of Karras et al. 2022, then 0."""
    n, rho, low, high = 18, 7, 0.002, 80.0
    i = torch.arange(n, dtype=torch.float64)
    expected = (high ** (1 / rho) + i / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    sigma = EDM(high).sigma(Karras()(n, EDM(high)))
    assert torch.allclose(sigma[:-1], expected, rtol=1e-9)
    af3 = EDM(2560.0).sigma(alphafold3().grid(200, EDM(2560.0)))
    assert float(af3[0]) == pytest.approx(160 * 16)
    assert float(af3[-2]) == pytest.approx(4e-4 * 16)


def test_a_schedule_that_keeps_noise_at_its_end_ends_there():
    """VE stops at its own sigma_min, which lies above what these grids would ask for."""
    schedule = VE(0.5, 50.0)
    for grid in (Karras(), UniformLogSNR()):
        sigma = schedule.sigma(grid(20, schedule))
        assert float(sigma[-1]) == pytest.approx(0.5)
        ratio = sigma[:-1] / sigma[1:]
        assert float(ratio.max()) < 3
        assert float(ratio.min()) > 1


def test_a_warp_from_beyond_the_schedule_begins_where_the_schedule_does():
    schedule = EDM(30.0)
    t = Karras(sigma_min=0.02, sigma_max=2560.0)(20, schedule)
    assert torch.equal(t, Karras(sigma_min=0.02)(20, schedule))


@pytest.mark.parametrize("wrong", [{"sigma_min": 0}, {"sigma_max": -1.0}, {"rho": 0.0}])
def test_levels_that_are_none(wrong):
    with pytest.raises(ValueError, match="must be more than 0"):
        Karras(**wrong)
