"""What every sampler must do: its law, its seeds, its last step, its count of calls."""

from __future__ import annotations

import torch
from torch import Tensor

from sciffusion.core.analytic import GaussianMixture, gaussian
from sciffusion.core.denoiser import State
from sciffusion.core.samplers.base import Sampler
from sciffusion.core.schedules import VP, Schedule


class _Counted(GaussianMixture):
    """A Gaussian that counts how often it is really asked."""

    asked = 0

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None, state: State | None = None):  # type: ignore[no-untyped-def]
        self.asked += 1
        return super().forward(x_t, t, cond, state)  # type: ignore[arg-type]


def check_sampler_conformance(
    sampler: Sampler, schedule: Schedule | None = None, n: int = 2000, slack: float = 0.03
) -> None:
    """Hold a sampler to its contract, on the exact denoiser of a 2-D Gaussian.

    It reaches the mean and covariance within 5 standard errors and `slack` of their scale, gives a
    sample the same result in any batch, leaves no noise when the data are one point, reports the
    calls it makes and does not touch its input.

    Args:
        sampler: with as many steps as it needs to be within `slack`.
        schedule: VP by default.
        n: samples.
        slack: discretisation error allowed, as a share of the standard deviations.

    Raises:
        AssertionError: with the property that fails.
    """
    name, schedule = type(sampler).__name__, schedule or VP()
    mean = torch.tensor([0.6, -0.4], dtype=torch.float64)
    cov = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    oracle = _Counted(mean[None], cov[None], schedule)
    out = sampler(oracle, (2,), n=n, seed=5)
    assert out.x.shape == (n, 2), f"{name} gives the shape {tuple(out.x.shape)}"
    assert out.x.isfinite().all(), f"{name} gives numbers that are not finite"
    assert out.nfe == oracle.asked, f"{name} reports {out.nfe} calls of {oracle.asked}"

    x, std = out.x.double(), cov.diagonal().sqrt()
    error = ((x.mean(0) - mean).abs() / std).max()
    assert error < 5 / n**0.5 + slack, f"{name}: the mean is {error:.3g} standard deviations off"
    error = ((x.T.cov() - cov).abs() / (std[:, None] * std)).max()
    assert error < 5 * (2 / n) ** 0.5 + slack, f"{name}: the covariance is off by {error:.3g}"

    alone = sampler(oracle, (2,), index=torch.tensor([17]), seed=5).x[0]
    error = (alone - out.x[17]).abs().max()
    assert error < 1e-3, f"{name}: sample 17 alone is another than in a batch ({error:.3g})"

    start = torch.full((3, 2), 0.5)
    sampler(oracle, (2,), n=3, x=start)
    assert bool((start == 0.5).all()), f"{name} changes its input in place"

    point = gaussian(mean, torch.zeros(2, 2), schedule)
    left = (sampler(point, (2,), n=20, seed=5).x - mean.float()).abs().max()
    assert left < 5e-3, f"{name} leaves {left:.3g} of noise in the last step"
