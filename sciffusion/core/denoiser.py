"""Denoisers: anything that looks at x_t and says what it thinks of the data.

A network with a schedule and a parameterization is one; guidance, thresholding and analytic oracles
are others, and they compose by wrapping. What must persist from call to call lives in `state`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.core.parameterization import (
    Coefficients,
    Parameterization,
    check_jump,
    eps_of_x0,
    times,
)
from sciffusion.core.rng import Rng
from sciffusion.core.schedules import Schedule, Times, check_schedule
from sciffusion.core.spaces import Euclidean, Space

Gives = Literal["mean", "velocity", "jump"]
"""What a denoiser truly gives: the posterior mean E[x0 | x_t], from which score and velocity
follow; only a valid velocity (aligned coupling of noise and data); or a jump to the data
(consistency)."""


PREVIOUS = "previous"
"""Where a network's last thought of x0 lies, in `Cond.structure` and in `State.memory`."""
WEAK = "weak"
"""Where the memory of autoguidance's weak network lies in `State.memory`."""


@dataclass
class State:
    """What a sampling loop carries from step to step.

    Attributes:
        rng: the samples' random numbers; its `step` is the position in the loop.
        history: (time, Prediction) of earlier steps, newest first, for multistep samplers.
        nfe: network calls so far.
        memory: what a denoiser keeps between its calls (self-conditioning).
    """

    rng: Rng
    history: list[tuple[Tensor, Prediction]] = field(default_factory=list)
    nfe: int = 0
    memory: dict[str, Any] = field(default_factory=dict)


class Prediction:
    """x_t seen by a denoiser: x0, eps, v, velocity and score of the same thought.

    Args:
        x: (B, ...) the noisy sample.
        x0, eps: the two that x_t = alpha x0 + sigma eps ties together.
        c: the schedule at the time of x.
        space: whose noise it is, for the score.
        raw: the network's own output, for the loss.
        log_var: learned interpolation in [0, 1] of the reverse log-variance between its two bounds
            (Nichol & Dhariwal 2021, eq. 15), where the network has one.
    """

    def __init__(
        self,
        x: Float[Tensor, "b ..."],
        x0: Float[Tensor, "b ..."],
        eps: Float[Tensor, "b ..."],
        c: Coefficients,
        space: Space,
        cond: Cond,
        raw: tuple[Parameterization, Tensor] | None = None,
        log_var: Float[Tensor, "b ..."] | None = None,
    ) -> None:
        self.x, self.x0, self.eps, self.c = x, x0, eps, c
        self.space, self.cond, self.raw, self.log_var = space, cond, raw, log_var

    @cached_property
    def v(self) -> Float[Tensor, "b ..."]:
        """alpha eps - sigma x0."""
        return times(self.c.alpha, self.eps) - times(self.c.sigma, self.x0)

    @cached_property
    def velocity(self) -> Float[Tensor, "b ..."]:
        """dx/dt of the probability-flow ODE, alpha' x0 + sigma' eps."""
        return times(self.c.d_alpha, self.x0) + times(self.c.d_sigma, self.eps)

    @cached_property
    def score(self) -> Float[Tensor, "b ..."]:
        """grad log p_t(x_t) = -Sigma^-1 eps / sigma."""
        return times(-1 / self.c.sigma, self.space.precision(self.eps, self.cond))

    def replace(
        self, x0: Float[Tensor, "b ..."], eps: Float[Tensor, "b ..."] | None = None
    ) -> Prediction:
        """The same x_t thought of differently; eps follows from x0 where it is not given."""
        eps = eps_of_x0(x0, self.x, self.c) if eps is None else eps
        return Prediction(self.x, x0, eps, self.c, self.space, self.cond, log_var=self.log_var)

    def frozen_mean(self) -> Prediction:
        """The same without gradients but through `log_var`: for the bound in the hybrid loss."""
        return self.replace(self.x0.detach(), self.eps.detach())

    def frozen(self) -> Prediction:
        """The same without any gradients: no graph is carried from step to step."""
        return self.mapped(Tensor.detach)

    def rows(self, index: Tensor) -> Prediction:
        """Of the samples at `index`; the time must be one for all."""
        return self.mapped(lambda v: v[index], self.cond[index])

    def mapped(self, f: Callable[[Tensor], Tensor], cond: Cond | None = None) -> Prediction:
        """With f of x, x0, eps and log_var: what does not change how they are tied together."""
        log_var = None if self.log_var is None else f(self.log_var)
        x, x0, eps = (f(v) for v in (self.x, self.x0, self.eps))
        cond = self.cond if cond is None else cond
        return Prediction(x, x0, eps, self.c, self.space, cond, log_var=log_var)

    def error(
        self, x0: Float[Tensor, "b ..."], eps: Float[Tensor, "b ..."]
    ) -> tuple[Float[Tensor, "b ..."], Tensor]:
        """(error, gain) such that gain * error is the error of x0.

        The error is that of the network's own output where there is one: at low noise the error of
        eps cannot be had from that of x0 without cancellation.
        """
        if self.raw is None:
            return self.x0 - x0, torch.ones_like(self.c.alpha)
        parameterization, raw = self.raw
        return raw - parameterization.target(x0, eps, self.c), parameterization.gain(self.c)


class Denoiser(nn.Module):
    """The base: `denoiser(x_t, t, cond, state) -> Prediction`; a subclass writes `predict`."""

    schedule: Schedule
    space: Space
    gives: Gives = "mean"
    sigma_min: float = 0.0
    """Of a jump: sigma/alpha where it leaves a sample as it is, which is what it jumps to."""
    learned_variance: bool = False
    """Whether predictions carry `log_var`."""
    network_calls = 1
    """Network evaluations a call costs by itself; wrappers say 0, what they wrap counts."""

    def forward(
        self,
        x_t: Float[Tensor, "b ..."],
        t: Times,
        cond: Cond | None = None,
        state: State | None = None,
    ) -> Prediction:
        """What is thought of x_t.

        Args:
            x_t: (B, ...) noisy samples.
            t: one time for all (0-d) or one a sample (B,), float64, in [0, 1].
            cond: what the samples are conditioned on.
            state: of the sampling loop; counts network calls.
        """
        if state is not None:
            state.nfe += self.network_calls
        return self.predict(x_t, t, cond or Cond(), state)

    def prepare(self, cond: Cond) -> Cond:
        """`cond` with what need not be worked out again at every step of a sampling loop."""
        return self.space.prepare(cond)

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        """The subclass's answer."""
        raise NotImplementedError(f"{type(self).__name__} does not write `predict`")

    def coefficients(self, t: Times, ndim: int) -> Coefficients:
        """The schedule at t, shaped for data of `ndim` axes."""
        return Coefficients(self.schedule, t, ndim)


class Wrapper(Denoiser):
    """A denoiser around another; schedule, space and what it gives are the inner one's."""

    network_calls = 0

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner = inner
        self.schedule, self.space, self.gives = inner.schedule, inner.space, inner.gives
        self.learned_variance, self.sigma_min = inner.learned_variance, inner.sigma_min

    def prepare(self, cond: Cond) -> Cond:
        return self.inner.prepare(cond)


class NetworkDenoiser(Denoiser):
    """A network, a schedule, a parameterization and a space.

    Args:
        network: `network(c_in x_t, log_snr (B,), cond)`; it sees the noise level as log-SNR. One
            that looks at `cond` alone for a good part of its work may have `prepare(cond)` do that.
            One that says `self_conditioned = True` is shown its last thought of x0 (Chen et al.
            2023, "Analog bits") as `cond.structure["previous"]`: absent at first, zero where a
            sample has none.
        learned_variance: its output has twice the channels (axis 1), the second half for `log_var`.
        gives: "velocity" where noise and data were coupled by alignment; "jump" for a consistency
            network (`core.consistency`).

    Raises:
        TypeError: a learned schedule.
        ValueError: a broken schedule, eps-prediction under zero terminal SNR, or a jump whose
            parameterization cannot be one.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        parameterization: Parameterization,
        space: Space | None = None,
        learned_variance: bool = False,
        gives: Gives = "mean",
    ) -> None:
        super().__init__()
        check_schedule(schedule)
        check_start(schedule, parameterization)
        if gives == "jump":
            check_jump(parameterization)
        self.sigma_min = getattr(parameterization, "sigma_min", 0.0)
        self.network, self.schedule, self.parameterization = network, schedule, parameterization
        self.space = space or Euclidean()
        self.learned_variance, self.gives = learned_variance, gives
        self.autocast: torch.dtype | None = None
        """What the network computes in by itself; None leaves it to who calls."""

    @property
    def self_conditioned(self) -> bool:
        """Whether the network looks at its last thought of x0."""
        return bool(getattr(self.network, "self_conditioned", False))

    def _automatic(self, device: torch.device) -> AbstractContextManager[Any]:
        return (
            nullcontext() if self.autocast is None else torch.autocast(device.type, self.autocast)
        )

    def prepare(self, cond: Cond) -> Cond:
        cond = super().prepare(cond)
        ready: Callable[[Cond], Cond] | None = getattr(self.network, "prepare", None)
        if ready is None:
            return cond
        with self._automatic(next(self.network.parameters()).device):
            return ready(cond)

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        c = self.coefficients(t, x_t.ndim)
        memory = state.memory if state is not None and self.self_conditioned else None
        if memory is not None and len(memory.get(PREVIOUS, ())) == len(x_t):
            cond = cond.with_structure(**{PREVIOUS: memory[PREVIOUS]})
        log_snr = self.schedule.log_snr(t.double()).to(x_t.dtype)
        if log_snr.ndim == 0:
            log_snr = torch.full((len(x_t),), float(log_snr), dtype=x_t.dtype, device=x_t.device)
        with self._automatic(x_t.device):
            raw = self.network(times(self.parameterization.scale_in(c), x_t), log_snr, cond)
        # Integrators and preconditioning stay in the samples' precision, whatever autocast did.
        raw = raw.to(x_t.dtype)
        log_var = None
        if self.learned_variance:
            raw, log_var = raw.chunk(2, 1)
            log_var = 0.5 * (log_var + 1)
        x0, eps = self.parameterization.to_x0_eps(raw, x_t, c)
        if memory is not None:
            memory[PREVIOUS] = x0
        return Prediction(x_t, x0, eps, c, self.space, cond, (self.parameterization, raw), log_var)


def check_start(schedule: Schedule, parameterization: Parameterization) -> None:
    """Refuse eps-prediction where the schedule ends without any data left.

    Raises:
        ValueError: x0 = (x - sigma eps) / alpha divides by zero at t = 1.
    """
    one = torch.ones((), dtype=torch.float64)
    if parameterization.needs_data_at_start and float(schedule.alpha(one)) == 0:
        raise ValueError(
            f"{type(parameterization).__name__.lower()}-prediction cannot be sampled under a "
            "schedule with zero terminal SNR (it divides by alpha(1) = 0): use v, x0, velocity or "
            "edm"
        )


class Rescheduled(Wrapper):
    """A denoiser under another schedule than it was trained with.

    At equal log-SNR x_t is rescaled to the trained schedule's size; log-SNR is clamped to the
    trained range, and there the noise scales are matched instead.
    """

    def __init__(self, inner: Denoiser, schedule: Schedule) -> None:
        super().__init__(inner)
        check_schedule(schedule)
        self.schedule = schedule

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        trained = self.inner.schedule
        ends = trained.log_snr(torch.tensor([1.0, 0.0], dtype=torch.float64))
        log_snr = self.schedule.log_snr(t.double())
        low, high = ends.to(log_snr)
        clamped = torch.maximum(torch.minimum(log_snr, high), low)
        t_in = trained.t_of_log_snr(clamped)
        c, c_in = self.coefficients(t, x_t.ndim), self.inner.coefficients(t_in, x_t.ndim)
        pred: Prediction = self.inner(times(c_in.norm / c.norm, x_t), t_in, cond, state)
        # Where nothing was clamped the inner eps is the same eps, and exact at low noise.
        inside = (clamped == log_snr).view(c.t.shape).to(x_t.device)
        eps = torch.where(inside, pred.eps, eps_of_x0(pred.x0, x_t, c))
        return Prediction(x_t, pred.x0, eps, c, self.space, cond, log_var=pred.log_var)


class FunctionDenoiser(Denoiser):
    """A denoiser from a function `x0 = fn(x_t, t, cond)`."""

    def __init__(
        self,
        fn: Callable[[Tensor, Times, Cond], Tensor],
        schedule: Schedule,
        space: Space | None = None,
        gives: Gives = "mean",
    ) -> None:
        super().__init__()
        self.fn, self.schedule, self.space, self.gives = fn, schedule, space or Euclidean(), gives

    def predict(
        self, x_t: Float[Tensor, "b ..."], t: Times, cond: Cond, state: State | None
    ) -> Prediction:
        c = self.coefficients(t, x_t.ndim)
        x0 = self.fn(x_t, t, cond)
        return Prediction(x_t, x0, eps_of_x0(x0, x_t, c), c, self.space, cond)
