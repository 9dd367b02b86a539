"""Exact denoisers of Gaussian mixtures: the oracle of every sampler test.

For p(x0) = sum_k w_k N(m_k, C_k) and noise of covariance Sigma,
x_t | k ~ N(alpha m_k, S_k), S_k = alpha^2 C_k + sigma^2 Sigma, and
E[x0 | x_t] = sum_k p(k | x_t) (m_k + alpha C_k S_k^-1 (x_t - alpha m_k)).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, Prediction, State
from sciffusion.core.parameterization import eps_of_x0
from sciffusion.core.schedules import Schedule, Times
from sciffusion.core.spaces import Euclidean, Space


class GaussianMixture(Denoiser):
    """The posterior mean of a mixture, in closed form.

    Args:
        means: (K, D) in a space of flattened samples.
        covs: (K, D, D).
        schedule: the noise.
        weights: (K,), equal by default.
        noise_cov: (D, D) covariance of the space's unit noise; the identity by default.
        space: whose noise it is.
    """

    means: Tensor
    covs: Tensor
    log_weights: Tensor
    noise_cov: Tensor

    def __init__(
        self,
        means: Float[Tensor, "k d"],
        covs: Float[Tensor, "k d d"],
        schedule: Schedule,
        weights: Float[Tensor, " k"] | None = None,
        noise_cov: Float[Tensor, "d d"] | None = None,
        space: Space | None = None,
    ) -> None:
        super().__init__()
        k, d = means.shape
        weights = torch.ones(k) if weights is None else weights
        weights = weights.double() / weights.double().sum()
        self.register_buffer("means", means.double())
        self.register_buffer("covs", covs.double())
        self.register_buffer("log_weights", weights.log())
        cov = torch.eye(d) if noise_cov is None else noise_cov
        self.register_buffer("noise_cov", cov.double())
        self.schedule, self.space = schedule, space or Euclidean()

    def _posterior(
        self, x: Float[Tensor, "b d"], alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(log p(x, k), S_k^+ (x - alpha m_k), difference, S_k^+) for alpha, sigma (B or 1,)."""
        a, s = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
        cov = a**2 * self.covs + s**2 * self.noise_cov
        value, vector = torch.linalg.eigh(cov)
        # Off the space (a fixed centre of mass) there is neither data nor noise.
        real = value > 1e-12 * value.amax(-1, keepdim=True)
        inverse = torch.where(real, 1 / value.clamp_min(1e-300), 0.0)
        difference = x[:, None] - alpha.view(-1, 1, 1) * self.means
        rotated = (vector.mT @ difference[..., None])[..., 0]
        solved = (vector @ (inverse * rotated)[..., None])[..., 0]
        log_det = torch.where(real, value.clamp_min(1e-300).log(), 0.0).sum(-1)
        square = (rotated**2 * inverse).sum(-1)
        constant = real.sum(-1) * math.log(2 * math.pi)
        joint = self.log_weights - 0.5 * (square + log_det + constant)
        return joint, solved, difference, inverse

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        x = x_t.double().flatten(1)
        alpha, sigma = self.schedule.alpha(t.double()), self.schedule.sigma(t.double())
        joint, solved, _, _ = self._posterior(x, alpha.reshape(-1), sigma.reshape(-1))
        share = joint.softmax(1)[..., None]
        pull = (self.covs @ solved[..., None])[..., 0]
        x0 = (share * (self.means + alpha.reshape(-1, 1, 1) * pull)).sum(1)
        # eps = sigma Sigma S^-1 (x - alpha m) is exact at low noise; (x - alpha x0)/sigma is not.
        eps = sigma.reshape(-1, 1) * (share * (solved @ self.noise_cov)).sum(1)
        shape = x_t.shape
        c = self.coefficients(t, x_t.ndim)
        return Prediction(x_t, x0.view(shape).to(x_t), eps.view(shape).to(x_t), c, self.space, cond)

    def log_prob(self, x_t: Float[Tensor, "b ..."], t: Times) -> Float[Tensor, " b"]:
        """Exact log-density of x_t at time t, in nats."""
        alpha, sigma = self.schedule.alpha(t.double()), self.schedule.sigma(t.double())
        x = x_t.double().flatten(1)
        return self._posterior(x, alpha.reshape(-1), sigma.reshape(-1))[0].logsumexp(1)

    def draw(self, n: int, seed: int = 0) -> Float[Tensor, "n d"]:
        """Exact samples of the data."""
        generator = torch.Generator().manual_seed(seed)
        k = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        value, vector = torch.linalg.eigh(self.covs)
        root = vector * value.clamp_min(0).sqrt()[:, None] @ vector.mT
        z = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        x: Tensor = self.means[k] + (root[k] @ z[..., None])[..., 0]
        return x


def gaussian(mean: Tensor, cov: Tensor, schedule: Schedule) -> GaussianMixture:
    """One Gaussian: its posterior mean is linear, so every sampler's moments follow a recursion."""
    return GaussianMixture(mean[None], cov[None], schedule)


class GaussianJump(Denoiser):
    """The exact consistency function of a Gaussian N(m, C) under white noise.

    In y = x_t / alpha and s = sigma / alpha the probability-flow ODE shrinks each eigendirection of
    C by itself: f = m + sqrt((C + sigma_min^2) / (C + s^2)) (y - m).

    Args:
        mean: (D,) in a space of flattened samples.
        cov: (D, D).
        schedule: the noise.
        sigma_min: the noise, in sigma/alpha, that is left where it jumps to.
    """

    gives = "jump"
    mean: Tensor
    value: Tensor
    vector: Tensor

    def __init__(
        self,
        mean: Float[Tensor, " d"],
        cov: Float[Tensor, "d d"],
        schedule: Schedule,
        sigma_min: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean.double())
        value, vector = torch.linalg.eigh(cov.double())
        self.register_buffer("value", value)
        self.register_buffer("vector", vector)
        self.schedule, self.space, self.sigma_min = schedule, Euclidean(), sigma_min

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        c = self.coefficients(t, 2)
        # sqrt(C + s_min^2) alpha / sqrt(alpha^2 C + sigma^2) (x / alpha - m), also at alpha = 0
        scale = (c.alpha**2 * self.value + c.sigma**2).sqrt()
        root = (self.value + self.sigma_min**2).sqrt()
        centred = x_t.double().flatten(1) - c.alpha * self.mean
        x0 = (self.mean + (centred @ self.vector * (root / scale)) @ self.vector.mT).view_as(x_t)
        c = self.coefficients(t, x_t.ndim)
        eps = eps_of_x0(x0, x_t.double(), c)
        return Prediction(x_t, x0.to(x_t), eps.to(x_t), c, self.space, cond)
