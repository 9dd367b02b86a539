"""What every schedule must do, whatever its formulae."""

from __future__ import annotations

import torch

from sciffusion.core.schedules import Schedule, check_schedule


def check_schedule_conformance(schedule: Schedule, points: int = 401) -> None:
    """Hold a schedule to its contract.

    alpha and sigma are finite and not negative, in float64, of the shape of t; log-SNR is
    log(alpha^2 / sigma^2), falls strictly and is undone by `t_of_log_snr`; the derivatives are
    those of the functions.

    Args:
        schedule: any schedule.
        points: how many times to look at, in the open interval (0, 1).

    Raises:
        AssertionError: with the property and the time where it fails.
    """
    check_schedule(schedule)
    name = type(schedule).__name__
    # Irrational steps keep off the knots of tables, where second derivatives jump.
    t = (torch.arange(1, points + 1, dtype=torch.float64) * 0.6180339887) % 1
    t = 2e-3 + (1 - 4e-3) * t.sort().values
    functions = (schedule.alpha, schedule.sigma, schedule.d_alpha, schedule.d_sigma)
    for f in (*functions, schedule.log_snr):
        for at in (t, t[0], t.view(-1, 1)):
            value = f(at)
            assert value.shape == at.shape, f"{name}: {f.__name__} changes the shape of t"
            assert value.dtype == torch.float64, f"{name}: {f.__name__} leaves float64"
            assert value.isfinite().all(), f"{name}: {f.__name__} is not finite inside (0, 1)"

    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    log_snr = schedule.log_snr(t)
    gap = (log_snr - 2 * (alpha / sigma).log()).abs().max()
    assert gap < 1e-8, f"{name}: log_snr is off log(alpha^2 / sigma^2) by {gap:.3g}"

    error = (schedule.t_of_log_snr(log_snr) - t).abs()
    where = t[error.argmax()]
    assert error.max() < 1e-9, f"{name}: t_of_log_snr misses t = {where:.4g} by {error.max():.3g}"

    h = 1e-6
    for f, df in ((schedule.alpha, schedule.d_alpha), (schedule.sigma, schedule.d_sigma)):
        numeric = (f(t + h) - f(t - h)) / (2 * h)
        error = (df(t) - numeric).abs() / (1 + numeric.abs())
        where = t[error.argmax()]
        assert error.max() < 1e-4, f"{name}: {df.__name__} is no derivative at t = {where:.4g}"
