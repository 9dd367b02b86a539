"""Schedules: the contract, the published figures, and what is refused."""

import pytest
import torch
from torch import nn

from sciffusion.core import tables
from sciffusion.core.denoiser import NetworkDenoiser
from sciffusion.core.parameterization import X0, Eps, Preconditioned, V, Velocity
from sciffusion.core.schedules import VP, RectifiedFlow, Schedule, check_schedule
from sciffusion.testing import check_schedule_conformance

NET = nn.Identity()


def test_conformance(schedule):
    check_schedule_conformance(schedule)


def test_derivatives_by_autograd(schedule):
    t = torch.linspace(0.013, 0.987, 97, dtype=torch.float64, requires_grad=True)
    for f, df in ((schedule.alpha, schedule.d_alpha), (schedule.sigma, schedule.d_sigma)):
        value = f(t)
        if not value.requires_grad:
            assert (df(t) == 0).all()
            continue
        (gradient,) = torch.autograd.grad(value.sum(), t)
        assert torch.allclose(df(t), gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("steps", [1000, 250, 100, 37])
def test_a_table_is_exact_on_its_entries(steps):
    for make in (tables.linear, tables.cosine, tables.scaled_linear, tables.sigmoid):
        table = make(steps)
        t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
        assert torch.allclose(table.alpha(t) ** 2, table.alphas_cumprod, rtol=1e-10, atol=1e-13)
        assert torch.allclose(table.sigma(t) ** 2, 1 - table.alphas_cumprod, rtol=1e-10)
        assert torch.allclose(
            (1 - table.betas).cumprod(0), table.alphas_cumprod, rtol=1e-10, atol=1e-13
        )
        assert torch.allclose(table.t_of_log_snr(table.log_snr(t)), t, atol=1e-12)
        ends = table.sigma(torch.tensor([0.0], dtype=torch.float64))
        assert float(ends) == 0
        fine = torch.linspace(0, 1, 7 * steps + 1, dtype=torch.float64)
        assert (table.log_snr(fine).diff() < 0).all()
        assert torch.allclose(table.alpha(fine) ** 2 + table.sigma(fine) ** 2, fine * 0 + 1)


def test_linear_figures():
    table = tables.linear()
    assert float(table.alphas_cumprod[-1]) == pytest.approx(4.04e-5, rel=2e-3)
    assert torch.allclose(table.betas, torch.linspace(1e-4, 0.02, 1000).double(), atol=1e-9)
    short = tables.linear(100)
    assert float(short.betas[0]) == pytest.approx(1e-3)
    assert float(short.betas[-1]) == pytest.approx(0.2)
    assert float(short.alphas_cumprod[-1]) < 1e-4
    # Without the rescaling T = 100 would keep a third of the data.
    broken = tables.from_betas(torch.linspace(1e-4, 0.02, 100, dtype=torch.float64))
    assert float(broken.alphas_cumprod[-1]) == pytest.approx(0.364, abs=1e-3)
    tables.linear(21)
    for steps in (20, 10):
        with pytest.raises(ValueError, match=r"beta = .* >= 1"):
            tables.linear(steps)


def test_cosine_figures():
    table = tables.cosine()
    assert float(table.betas[0]) == pytest.approx(4.13e-5, rel=2e-3)
    assert float(table.betas[-1]) == pytest.approx(0.999, abs=1e-12)
    assert (table.betas[:-1] < 0.9985).all()
    assert float(table.alphas_cumprod[-1]) == pytest.approx(2.43e-9, rel=3e-3)


def test_scaled_linear_figure():
    assert float(tables.scaled_linear().alphas_cumprod[-1]) == pytest.approx(0.00466, abs=5e-6)


def test_zero_terminal_snr():
    plain = tables.linear()
    table = tables.zero_terminal_snr(plain)
    one = torch.ones((), dtype=torch.float64)
    assert float(table.alpha(one)) == 0
    assert float(table.sigma(one)) == 1
    assert float(table.alphas_cumprod[0]) == pytest.approx(
        float(plain.alphas_cumprod[0]), abs=1e-15
    )
    assert float(table.log_snr(one)) == -torch.inf
    with pytest.raises(ValueError, match="zero terminal SNR"):
        NetworkDenoiser(NET, table, Eps())
    with pytest.raises(ValueError, match="zero terminal SNR"):
        NetworkDenoiser(NET, RectifiedFlow(), Eps())
    for parameterization in (V(), X0(), Velocity(), Preconditioned(0.5)):
        NetworkDenoiser(NET, table, parameterization)


def test_a_last_beta_of_one_is_zero_terminal_snr():
    table = tables.from_betas(torch.tensor([0.1, 0.2, 0.3, 0.5, 1.0]))
    assert float(table.alphas_cumprod[-1]) == 0
    check_schedule_conformance(table)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ([0.9, 0.8, 0.8, 0.1], r"\[2\]"),
        ([0.9, 0.95, 0.5, 0.1], r"\[1\]"),
        ([1.0, 0.8, 0.5, 0.1], r"\[0\]"),
        ([0.9, 0.8, 0.0, 0.0], r"\[2\]"),
        ([0.9, 0.8, 0.5, float("nan")], r"\[3\]"),
        ([0.9, 0.8], "at least 4"),
    ],
)
def test_broken_tables_are_refused(values, where):
    with pytest.raises(ValueError, match=where):
        tables.Table(torch.tensor(values, dtype=torch.float64))


def test_broken_betas_are_refused():
    with pytest.raises(ValueError, match="beta_2 of 5"):
        tables.from_betas(torch.tensor([0.1, 1.0, 0.1, 0.1, 0.1]))


class Turned(RectifiedFlow):
    def alpha(self, t):
        return t

    def sigma(self, t):
        return 1 - t


class Wavy(RectifiedFlow):
    def t_of_log_snr(self, log_snr):
        return torch.sigmoid(-log_snr)


class Infinite(RectifiedFlow):
    def sigma(self, t):
        return 1 / (1 - t)


class Learned(nn.Module, RectifiedFlow):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    ("broken", "error", "reason"),
    [
        (Turned(), ValueError, "does not fall"),
        (Wavy(), ValueError, "not the inverse"),
        (Infinite(), ValueError, r"sigma\(1\) = inf"),
        (Learned(), TypeError, "learned"),
        (lambda t: t, TypeError, "expected a Schedule"),
    ],
)
def test_refused_with_the_reason(broken, error, reason):
    with pytest.raises(error, match=reason):
        check_schedule(broken)
    with pytest.raises(error, match=reason):
        NetworkDenoiser(NET, broken, V())


def test_high_and_low_noise_keep_their_digits():
    """log-SNR comes back through t from 1e-12 of the noise to 1e-4 of the data."""
    for schedule in (VP(), RectifiedFlow()):
        log_snr = torch.linspace(-8, 50, 59, dtype=torch.float64)
        again = schedule.log_snr(schedule.t_of_log_snr(log_snr))
        assert torch.allclose(again, log_snr, rtol=1e-9, atol=1e-9)
    assert isinstance(VP(), Schedule)
