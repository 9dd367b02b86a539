"""The weighted denoising loss, its weightings, and what stands beside it.

L = E_t w(t) |x0_hat - x0|^2, the mean over true degrees of freedom. A `Weighting` is the factor on
the error of x0; the loss itself works on the error of the network's own output, times gain^2, so
nothing cancels at low noise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import PREVIOUS, Denoiser, Gives, Prediction
from sciffusion.core.fourier import Fourier, c_noise
from sciffusion.core.geometry import centre, full_precision, kabsch
from sciffusion.core.parameterization import Coefficients, times
from sciffusion.core.rng import Rng
from sciffusion.core.times import TimeDistribution, Uniform
from sciffusion.core.vlb import step_kl


class Weighting(ABC):
    """The weight of the squared error of x0 at a noise level."""

    @abstractmethod
    def __call__(self, c: Coefficients, gain: Tensor) -> Tensor:
        """w, float64; `gain` = d x0 / d raw of the network's own output."""


class Simple(Weighting):
    """1 on the network's own target: L_simple of Ho et al. 2020 for eps; likewise v and x0."""

    def __call__(self, c: Coefficients, gain: Tensor) -> Tensor:
        return gain**-2


class SNR(Weighting):
    """alpha^2 / sigma^2: the error of eps, whatever the network predicts."""

    def __call__(self, c: Coefficients, gain: Tensor) -> Tensor:
        return c.log_snr.exp()


class MinSNR(Weighting):
    """min(SNR, gamma) (Hang et al. 2023)."""

    def __init__(self, gamma: float = 5.0) -> None:
        self.gamma = gamma

    def __call__(self, c: Coefficients, gain: Tensor) -> Tensor:
        return c.log_snr.exp().clamp_max(self.gamma)


class EDMWeight(Weighting):
    """(s^2 + sd^2) / (s sd)^2, s = sigma / alpha (Karras et al. 2022): 1 on EDM's own target."""

    def __init__(self, sigma_data: float) -> None:
        self.sigma_data = sigma_data

    def __call__(self, c: Coefficients, gain: Tensor) -> Tensor:
        return self.sigma_data**-2 + c.log_snr.exp()


class FlowMatching(Weighting):
    """The error of the velocity: (alpha' - alpha sigma' / sigma)^2 (Lipman et al. 2023)."""

    def __call__(self, c: Coefficients, gain: Tensor) -> Tensor:
        return (c.d_alpha - c.alpha * c.d_sigma / c.sigma) ** 2


class ClippedInverseSquare(Weighting):
    """1 / max(t, t_min)^2 on x0 (Proteina, DiTMC): flow matching's weight, held at low noise."""

    def __init__(self, t_min: float = 0.1) -> None:
        self.t_min = t_min

    def __call__(self, c: Coefficients, gain: Tensor) -> Tensor:
        return c.t.clamp_min(self.t_min) ** -2


class Uncertainty(Fourier):
    """EDM2's u(sigma), the log of the loss expected at a level (Karras et al. 2024, eq. 14).

    One linear layer without bias on Fourier features of ln(sigma / alpha) / 4; it begins at 0. Its
    size is free, unlike that of the paper's network: losses need not be near 1. Not used to sample.

    Args:
        channels: number of Fourier features.
    """

    def __init__(self, channels: int = 128) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.zeros(channels))

    @full_precision
    def forward(self, log_snr: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """u, never in half precision: an error of u is one of the loss."""
        u: Tensor = self.features(c_noise(log_snr)) @ self.weight / math.sqrt(len(self.weight))
        return u


class RigidAlignment:
    """Noise turned onto the data by the best rotation: shorter, straighter paths.

    Noise and data then depend on each other, so -eps / sigma is not the score. The space's noise
    must be the same in all directions, as ZeroCoM's and Harmonic's are.
    """

    def __call__(
        self, eps: Float[Tensor, "b n 3"], x0: Float[Tensor, "b n 3"], cond: Cond
    ) -> Float[Tensor, "b n 3"]:
        return kabsch(eps, centre(x0, cond.mask), cond.mask)


class DenoisingLoss(nn.Module):
    """Draw t and eps, look at x_t, weigh the error.

    Args:
        times: distribution of t.
        weighting: w.
        uncertainty: learned u: the loss becomes w |err|^2 exp(-u) + u (EDM2).
        vlb_weight: of the bound on which a learned variance is trained (Nichol & Dhariwal 2021,
            L_hybrid: 0.001); its mean gets no gradient from it. 0 for a fixed variance.
        vlb_steps: T of that bound.
        coupling: how noise is matched to data; None draws them independently. A network trained
            with one gives a velocity only.
        self_condition: share of samples that a self-conditioned network is shown its first thought
            of (Chen et al. 2023); others do not look.
    """

    gives: ClassVar[Gives] = "mean"
    """What the network that it trains gives; with a coupling a velocity."""

    def __init__(
        self,
        times: TimeDistribution | None = None,
        weighting: Weighting | None = None,
        uncertainty: Uncertainty | None = None,
        vlb_weight: float = 0.0,
        vlb_steps: int = 1000,
        coupling: Callable[[Tensor, Tensor, Cond], Tensor] | None = None,
        self_condition: float = 0.5,
    ) -> None:
        super().__init__()
        self.coupling, self.self_condition = coupling, self_condition
        self.times, self.weighting = times or Uniform(), weighting or Simple()
        self.uncertainty, self.vlb_weight, self.vlb_steps = uncertainty, vlb_weight, vlb_steps

    def forward(
        self,
        denoiser: Denoiser,
        x0: Float[Tensor, "b ..."],
        cond: Cond | None,
        rng: Rng,
    ) -> Float[Tensor, " b"]:
        """The loss of each sample; times and noises follow from `rng` alone."""
        cond = denoiser.space.prepare(cond or Cond())
        t = self.times.sample(rng, denoiser.schedule)
        eps = denoiser.space.noise(rng, "train noise", tuple(x0.shape[1:]), cond, x0.dtype)
        if self.coupling is not None:
            eps = self.coupling(eps, x0, cond)
        c = denoiser.coefficients(t, x0.ndim)
        x_t = times(c.alpha, x0) + times(c.sigma, eps)
        if getattr(denoiser, "self_conditioned", False):
            cond = self._with_previous(denoiser, x_t, t, cond, rng)
        pred: Prediction = denoiser(x_t, t, cond)
        loss = self.weigh(denoiser, pred, x0, eps, cond)
        if self.vlb_weight > 0:
            kl = step_kl(denoiser, pred.frozen_mean(), x0, t, self.vlb_steps)
            loss = loss + self.vlb_weight * self.vlb_steps * kl
        return loss

    def _with_previous(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Cond, rng: Rng
    ) -> Cond:
        """`cond` with a first thought of x0, for that share of the samples."""
        shown = (rng.uniform("self-condition") < self.self_condition).to(x_t.device).nonzero()[:, 0]
        previous = torch.zeros_like(x_t)  # also where none is: one graph to compile
        if len(shown):
            with torch.no_grad():
                previous[shown] = denoiser(x_t[shown], t[shown], cond[shown]).x0.to(x_t.dtype)
        return cond.with_structure(**{PREVIOUS: previous})

    def weigh(
        self,
        denoiser: Denoiser,
        pred: Prediction,
        x0: Float[Tensor, "b ..."],
        eps: Float[Tensor, "b ..."],
        cond: Cond,
    ) -> Float[Tensor, " b"]:
        """The weighted error of a prediction."""
        error, gain = pred.error(x0, eps)
        weight = self.weighting(pred.c, gain) * gain**2
        loss = denoiser.space.mean(times(weight, error**2), cond)
        if self.uncertainty is not None:
            u = self.uncertainty(pred.c.log_snr.flatten())
            loss = loss * (-u).exp() + u
        return loss


def measure_sigma_data(batches: Iterable[Float[Tensor, "b ..."]]) -> float:
    """Standard deviation of the data about zero: what EDM's preconditioning calls sigma_data."""
    total, count = 0.0, 0
    for x in batches:
        total += float(x.double().square().sum())
        count += x.numel()
    if count == 0:
        raise ValueError("sigma_data cannot be measured: there are no data")
    return math.sqrt(total / count)
