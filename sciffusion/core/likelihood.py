"""Log-likelihood by the probability-flow ODE, and the invertible map between data and latents.

In the angle phi = atan(sigma / alpha) the normalised sample moves with v, so
log p(y_0) = log p(y_1) + integral of div v dphi (Chen et al. 2018, eq. 8; Song et al. 2021, app.
D), and log p(x_0) = log p(y_0) + dim log cos(phi_0). The divergence is that of the flow on the
space: tr(P J P), P its projection. So a centred cloud of N points in 3 dimensions has a density in
nats with respect to Lebesgue measure on its 3 (N - 1) degrees of freedom, and padding has none.

What is evaluated is the model whose noise is sigma(1) times the space's and whose samples still
hold noise of `sigma_min`, which must lie below the finest detail of the data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, State
from sciffusion.core.editing import Replacement
from sciffusion.core.guidance import ClassifierGuided
from sciffusion.core.integrate import Parts, dormand_prince
from sciffusion.core.parameterization import times
from sciffusion.core.projection import Projected
from sciffusion.core.rng import Rng
from sciffusion.core.samplers.ode import DormandPrince, angle, turning
from sciffusion.core.spaces import Space
from sciffusion.core.steering import Steered

WITHOUT_GRADIENT = (ClassifierGuided, Steered, Projected, Replacement)
"""Denoisers whose answer does not carry the gradient of all that they do."""


class Divergence(Protocol):
    """How tr(P J P) is found: from u . J u for some directions u of the space."""

    def directions(
        self, space: Space, rng: Rng, x: Float[Tensor, "b ..."], cond: Cond
    ) -> Iterator[Float[Tensor, "b ..."]]:
        """The u, the same at every call."""
        ...

    def estimates(self, forms: Float[Tensor, "k b"]) -> Float[Tensor, "b m"]:
        """u . J u of each direction, put together into m independent estimates."""
        ...


class Exact:
    """Every coordinate's direction in turn: a backward pass each, for small dimensions."""

    def directions(
        self, space: Space, rng: Rng, x: Float[Tensor, "b ..."], cond: Cond
    ) -> Iterator[Float[Tensor, "b ..."]]:
        """The projected unit vectors: the sum of P e e' P is P."""
        for i in range(math.prod(x.shape[1:])):
            unit = torch.zeros_like(x)
            unit.flatten(1)[:, i] = 1
            unit = space.project(unit, cond)
            if bool(unit.any()):  # not padding in all samples
                yield unit

    def estimates(self, forms: Float[Tensor, "k b"]) -> Float[Tensor, "b one"]:
        """Their sum."""
        return forms.sum(0)[:, None]


class Hutchinson:
    """E[u . J u] over random u of covariance P (Hutchinson 1989; Grathwohl et al. 2019).

    Directions belong to samples, like all random numbers, and stay the same along the way, so the
    integrand is smooth and each probe gives an estimate of its own, from whose scatter comes the
    standard error.

    Args:
        probes: how many; one gives no standard error.
        noise: "rademacher", of the least variance, or "gaussian".

    Raises:
        ValueError: fewer than one probe, or another noise.
    """

    def __init__(self, probes: int = 1, noise: str = "rademacher") -> None:
        if probes < 1:
            raise ValueError(f"probes={probes} must be at least 1")
        if noise not in ("rademacher", "gaussian"):
            raise ValueError(f"noise={noise} is not known: rademacher or gaussian")
        self.probes, self.noise = probes, noise

    def directions(
        self, space: Space, rng: Rng, x: Float[Tensor, "b ..."], cond: Cond
    ) -> Iterator[Float[Tensor, "b ..."]]:
        """Random directions of the space."""
        for k in range(self.probes):
            u = rng.normal(f"hutchinson {k}", tuple(x.shape[1:]), cond.mask, x.dtype)
            yield space.project(u.sign() if self.noise == "rademacher" else u, cond)

    def estimates(self, forms: Float[Tensor, "k b"]) -> Float[Tensor, "b k"]:
        """Each by itself."""
        return forms.T


@dataclass(frozen=True)
class LogLikelihood:
    """Of some samples.

    Attributes:
        value: (B,) log p(x0) in nats, float64.
        error: (B,) standard error of the divergence in it: 0 where exact, NaN by a single probe.
        latent: (B, ...) the unit noise at the other end.
        dim: (B,) degrees of freedom.
        nfe: network calls a sample, each with as many backward passes as there are directions.
    """

    value: Float[Tensor, " b"]
    error: Float[Tensor, " b"]
    latent: Float[Tensor, "b ..."]
    dim: Float[Tensor, " b"]
    nfe: int


class ProbabilityFlow:
    """A denoiser as an invertible map between data and unit noise, with its density.

    A self-conditioned network is used without its last thought: what it says then depends on x_t
    alone.

    Args:
        denoiser: any that gives a velocity.
        divergence: `Exact` by default.
        rtol, atol: allowed error of a step, relative and absolute, of the sample as a root mean
            square, and of the log-density for each degree of freedom.
        sigma_min: sigma/alpha that counts as no noise, in the data's unit; where the schedule's own
            noise at t = 0 is larger, that.
        max_calls: network calls on the way before giving up.

    Raises:
        TypeError: the denoiser jumps to the data, and so has no ODE.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        divergence: Divergence | None = None,
        rtol: float = 1e-6,
        atol: float = 1e-6,
        sigma_min: float = 2e-3,
        max_calls: int = 10_000,
    ) -> None:
        DormandPrince().check(denoiser)
        self.denoiser, self.divergence = denoiser, divergence or Exact()
        self.rtol, self.atol, self.max_calls = rtol, atol, max_calls
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        floor = torch.tensor(math.atan(sigma_min), dtype=torch.float64)
        self.first, self.last = torch.maximum(angle(denoiser, ends), floor)

    def log_prob(
        self,
        x0: Float[Tensor, "b ..."],
        cond: Cond | None = None,
        seed: int = 0,
        index: Int[Tensor, " b"] | None = None,
        grad: bool = False,
    ) -> LogLikelihood:
        """log p(x0) with respect to Lebesgue measure on the space; x0 is projected onto it.

        Args:
            x0: data.
            cond: their conditioning.
            seed, index: name the samples' random directions; index is 0, 1, ... by default.
            grad: keep the graph, so that gradients of `value` reach x0 and the network's weights.

        Raises:
            TypeError: a guidance whose own gradient is not followed.
            RuntimeError: `max_calls` were not enough.
        """
        with torch.set_grad_enabled(grad):
            cond = self.denoiser.prepare(cond or Cond())
            y = times(self.first.cos(), self.denoiser.space.project(x0, cond))
            y, change, nfe = self._with_density(y, cond, seed, index, True, grad)
            return self._told(y, change, cond, nfe)

    def draw(
        self,
        shape: tuple[int, ...],
        cond: Cond | None = None,
        seed: int = 0,
        n: int | None = None,
        index: Int[Tensor, " b"] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        grad: bool = False,
    ) -> tuple[Float[Tensor, "b ..."], LogLikelihood]:
        """Samples with their own log-likelihood, in one walk: proposals for importance weights.

        Arguments as those of a sampler; raises what `log_prob` does.
        """
        with torch.set_grad_enabled(grad):
            cond = self.denoiser.prepare(cond or Cond())
            index = torch.arange(1 if n is None else n) if index is None else index
            rng = Rng(seed, index.to(device))
            z = self.denoiser.space.noise(rng, "start", shape, cond, dtype)
            start = times(self.last.sin(), z)
            y, change, nfe = self._with_density(start, cond, seed, index, False, grad)
            return times(1 / self.first.cos(), y), self._told(start, -change, cond, nfe)

    def encode(
        self, x0: Float[Tensor, "b ..."], cond: Cond | None = None, grad: bool = False
    ) -> Float[Tensor, "b ..."]:
        """Data to their latents, unit noise of the space; `decode` undoes it."""
        with torch.set_grad_enabled(grad):
            cond = self.denoiser.prepare(cond or Cond())
            y = times(self.first.cos(), self.denoiser.space.project(x0, cond))
            return times(1 / self.last.sin(), self._walk(y, cond, True))

    def decode(
        self, latent: Float[Tensor, "b ..."], cond: Cond | None = None, grad: bool = False
    ) -> Float[Tensor, "b ..."]:
        """Latents to data; `encode` undoes it."""
        with torch.set_grad_enabled(grad):
            cond = self.denoiser.prepare(cond or Cond())
            y = times(self.last.sin(), self.denoiser.space.project(latent, cond))
            return times(1 / self.first.cos(), self._walk(y, cond, False))

    def _velocity(self, y: Tensor, phi: Tensor, cond: Cond, state: State) -> Tensor:
        v = turning(self.denoiser, y, phi, cond, state)
        state.memory.clear()  # what a network thought before is no part of a density
        return self.denoiser.space.project(v, cond)

    def _ends(self, y: Tensor, up: bool) -> tuple[Tensor, Tensor]:
        ends = (self.first, self.last) if up else (self.last, self.first)
        start, goal = (v.to(y.device).expand(len(y)) for v in ends)
        return start, goal

    def _size(self, error: Tensor, before: Tensor, after: Tensor, cond: Cond) -> Tensor:
        scale = self.atol + self.rtol * torch.maximum(before.abs(), after.abs())
        return self.denoiser.space.mean((error / scale) ** 2, cond).sqrt()

    def _walk(self, y: Tensor, cond: Cond, up: bool) -> Tensor:
        state = State(Rng(0, torch.arange(len(y), device=y.device)))

        def slope(parts: Parts, phi: Tensor) -> Parts:
            return (self._velocity(parts[0], phi, cond, state),)

        def size(error: Parts, before: Parts, after: Parts) -> Tensor:
            return self._size(error[0], before[0], after[0], cond)

        return dormand_prince(slope, (y,), *self._ends(y, up), size, self.max_calls)[0]

    def _with_density(
        self,
        y: Tensor,
        cond: Cond,
        seed: int,
        index: Tensor | None,
        up: bool,
        grad: bool,
    ) -> tuple[Tensor, Tensor, int]:
        """(y at the other end, (B, M) estimates of the integral of div v on the way, calls)."""
        for part in self.denoiser.modules():
            if isinstance(part, WITHOUT_GRADIENT):
                raise TypeError(
                    "a likelihood needs the divergence of all that moves a sample, and "
                    f"{type(part).__name__} does not pass gradients on: take it away"
                )
        space = self.denoiser.space
        index = torch.arange(len(y)) if index is None else index
        rng = Rng(seed, index.to(y.device))
        state = State(rng)
        exact = isinstance(self.divergence, Exact)
        fixed = None if exact else list(self.divergence.directions(space, rng, y, cond))
        dim = space.dim(y, cond).double()

        def slope(parts: Parts, phi: Tensor) -> Parts:
            with torch.enable_grad():
                here = parts[0]
                # A view of its own, so that gradients by it are those of this call alone
                here = here.view_as(here) if here.requires_grad else here.detach().requires_grad_()
                v = self._velocity(here, phi, cond, state)
                forms = []
                for u in fixed or self.divergence.directions(space, rng, here, cond):
                    (pulled,) = torch.autograd.grad(
                        v, here, u, retain_graph=True, create_graph=grad, materialize_grads=True
                    )
                    forms.append((pulled * u).double().flatten(1).sum(1))
            divergence = self.divergence.estimates(torch.stack(forms))
            return (v, divergence) if grad else (v.detach(), divergence.detach())

        def size(error: Parts, before: Parts, after: Parts) -> Tensor:
            allowed = self.atol * dim + self.rtol * torch.maximum(before[1].abs(), after[1].abs()).T
            density = (error[1].abs() / allowed.T.clamp_min(1e-300)).amax(1)
            return torch.maximum(self._size(error[0], before[0], after[0], cond).double(), density)

        columns = len(fixed) if fixed is not None else 1
        zero = torch.zeros(len(y), columns, dtype=torch.float64, device=y.device)
        y, change = dormand_prince(slope, (y, zero), *self._ends(y, up), size, self.max_calls)
        return y, change, state.nfe

    def _told(self, y: Tensor, change: Tensor, cond: Cond, nfe: int) -> LogLikelihood:
        """The density of data, from y at the noise end and the integral from data to noise."""
        space = self.denoiser.space
        z = times(1 / self.last.sin(), y)
        dim = space.dim(z, cond).double()
        prior = space.log_prob(z.double(), cond)
        scale = (self.first.cos().log() - self.last.sin().log()).to(dim.device)
        value = prior + change.mean(1) + dim * scale
        error = torch.zeros_like(value)
        if not isinstance(self.divergence, Exact):
            m = change.shape[1]
            error = change.std(1) / m**0.5 if m > 1 else torch.full_like(value, math.nan)
        return LogLikelihood(value, error.detach(), z, dim, nfe)


def round_trip(
    flow: ProbabilityFlow, x0: Float[Tensor, "b ..."], cond: Cond | None = None
) -> Float[Tensor, " b"]:
    """|decode(encode(x)) - x| / |x| of each sample."""
    cond = flow.denoiser.space.prepare(cond or Cond())
    x0 = flow.denoiser.space.project(x0, cond)
    back = flow.decode(flow.encode(x0, cond), cond)
    off, size = ((v.flatten(1) ** 2).sum(1).sqrt() for v in (back - x0, x0))
    return off / size.clamp_min(1e-30)
