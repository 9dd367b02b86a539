"""The one sampling loop, and what every sampler shares.

A sampler writes one method, `step`. The base owns the grid of times, the random numbers, the jumps
back to more noise, the callbacks and the count of network calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Literal, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, Prediction, State
from sciffusion.core.parameterization import times as scaled
from sciffusion.core.rng import Rng
from sciffusion.core.times import Grid, UniformGrid
from sciffusion.core.transitions import forward_transition

Needs = Literal["velocity", "score", "jump"]
Transform = Callable[[Tensor, Tensor, Tensor, Cond, State], Tensor]
Callback = Callable[[int, Tensor, Tensor], None]
Progress = Callable[[range], "range"]

_ENOUGH = {"mean": ("velocity", "score"), "velocity": ("velocity",), "jump": ("jump",)}
_WHY = {
    ("velocity", "score"): "its noise and data were coupled by alignment, so -eps/sigma is not the "
    "score: use an ODE sampler (ddim with eta 0, euler, heun, dpmpp, dopri5)",
    ("jump", "score"): "it jumps to the data and has no score: use a consistency sampler",
    ("jump", "velocity"): "it jumps to the data and has no velocity: use a consistency sampler",
    ("mean", "jump"): "it gives posterior means, not jumps to the data: distil it first, or "
    "choose another sampler (accept_means=true takes the means for jumps)",
    ("velocity", "jump"): "it gives a velocity, not jumps to the data: distil it first",
}


@dataclass
class Samples:
    """What a sampler returns.

    Attributes:
        x: (n, ...) the samples.
        times: the grid that was walked.
        nfe: network calls a sample.
        trajectory: x at the start and after each step, where it was asked for.
    """

    x: Float[Tensor, "n ..."]
    times: Float[Tensor, " steps_and_one"]
    nfe: int
    trajectory: list[Float[Tensor, "n ..."]] = field(default_factory=list)


P = ParamSpec("P")
R = TypeVar("R")


def _gradient_where_asked(loop: Callable[P, R]) -> Callable[P, R]:
    """`torch.no_grad`, but where the call says `grad=True`."""

    @wraps(loop)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.set_grad_enabled(bool(kwargs.get("grad", False))):
            return loop(*args, **kwargs)

    return wrapped


class Sampler(ABC):
    """The base of all samplers.

    Args:
        steps: number of steps of the grid.
        grid: where to step.

    Class attributes declare what tests hold a sampler to: `order` of convergence in the number of
    steps (weak order where `stochastic`), and what it `needs` of a denoiser.
    """

    order: int = 1
    stochastic: bool = False
    needs: Needs = "velocity"

    def __init__(self, steps: int = 50, grid: Grid | None = None) -> None:
        self.steps, self.grid = steps, grid or self.default_grid()

    def default_grid(self) -> Grid:
        """The grid this sampler was published with."""
        return UniformGrid()

    @abstractmethod
    def step(
        self,
        denoiser: Denoiser,
        x: Float[Tensor, "b ..."],
        t: Tensor,
        s: Tensor,
        cond: Cond,
        state: State,
    ) -> Float[Tensor, "b ..."]:
        """From x at time t to time s < t (0-d, float64, on the CPU)."""

    def check(self, denoiser: Denoiser) -> None:
        """Refuse a denoiser that does not give what this sampler needs.

        Raises:
            TypeError: with the reason and what to use instead.
        """
        if self.needs not in _ENOUGH[denoiser.gives]:
            raise TypeError(
                f"{type(self).__name__} needs a {self.needs} that this denoiser does not give: "
                + _WHY[denoiser.gives, self.needs]
            )

    def noise(
        self, denoiser: Denoiser, x: Tensor, purpose: str, cond: Cond, state: State
    ) -> Tensor:
        """Unit noise of the denoiser's space for this step and purpose."""
        shape = tuple(x.shape[1:])
        return denoiser.space.noise(state.rng, purpose, shape, cond, x.dtype)

    def renoise(
        self, denoiser: Denoiser, x: Tensor, s: Tensor, t: Tensor, cond: Cond, state: State
    ) -> Tensor:
        """From time s back up to t > s by the forward process."""
        scale, var = forward_transition(denoiser.schedule, s, t, x.ndim)
        z = self.noise(denoiser, x, "renoise", cond, state)
        return scaled(scale, x) + scaled(var.sqrt(), z)

    @_gradient_where_asked
    def __call__(
        self,
        denoiser: Denoiser,
        shape: tuple[int, ...],
        cond: Cond | None = None,
        seed: int = 0,
        n: int | None = None,
        first: int = 0,
        index: Tensor | None = None,
        x: Float[Tensor, "n ..."] | None = None,
        times: Float[Tensor, " steps_and_one"] | None = None,
        after_step: Transform | None = None,
        callback: Callback | None = None,
        progress: Progress | None = None,
        trajectory: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        *,
        grad: bool = False,
    ) -> Samples:
        """Draw samples.

        Args:
            denoiser: what to sample from.
            shape: of one sample, without the batch axis (with padding where `cond` has a mask).
            cond: conditioning of the n samples.
            seed: sample i of a seed is the same in any batch.
            n: how many; or give `index`, their numbers, instead of first, ..., first + n - 1.
            x: where to start, at the grid's first time; by default sigma(1) times unit noise.
            times: a grid of one's own; it may go back up (RePaint, restarts).
            after_step: x -> x after each step (replacement, random rotations).
            callback: called with (step, time, x) after each step.
            progress: wraps the range of steps, e.g. a progress bar.
            trajectory: keep x after each step.
            dtype, device: of the samples.
            grad: keep the graph, so that gradients flow from the samples to `x`, to what `cond`
                holds and to the network's weights.

        Raises:
            TypeError: the denoiser does not give what this sampler needs.
        """
        self.check(denoiser)
        if index is None:
            index = torch.arange(first, first + (1 if n is None else n), device=device)
        cond = denoiser.prepare(Cond() if cond is None else cond)
        schedule = denoiser.schedule
        grid = self.grid(self.steps, schedule) if times is None else times.double().cpu()
        state = State(Rng(seed, index.to(device)))
        if x is None:
            z = denoiser.space.noise(state.rng, "start", shape, cond, dtype)
            x = scaled(schedule.sigma(grid[0]), z)
        kept = [x] if trajectory else []
        steps = range(len(grid) - 1)
        for i in steps if progress is None else progress(steps):
            t, s = grid[i], grid[i + 1]
            state.rng = state.rng.at(i + 1)
            if s > t:
                x = self.renoise(denoiser, x, t, s, cond, state)
                state.history.clear()
            else:
                x = self.step(denoiser, x, t, s, cond, state)
            if after_step is not None:
                x = after_step(x, t, s, cond, state)
            if trajectory:
                kept.append(x)
            if callback is not None:
                callback(i, s, x)
        x = self.finish(denoiser, x, grid[-1], cond, state)
        if trajectory:
            kept[-1] = x
        return Samples(x, grid, state.nfe, kept)

    def finish(self, denoiser: Denoiser, x: Tensor, t: Tensor, cond: Cond, state: State) -> Tensor:
        """The noise that a schedule such as VE leaves at t = 0 is taken away by one more call.

        A grid that was told to stop early (t > 0) is left as it is.
        """
        if float(t) > 0 or float(denoiser.schedule.sigma(t)) == 0:
            return x
        return self.predict(denoiser, x, t, cond, state).x0

    @staticmethod
    def predict(denoiser: Denoiser, x: Tensor, t: Tensor, cond: Cond, state: State) -> Prediction:
        """One call of the denoiser."""
        pred: Prediction = denoiser(x, t, cond, state)
        return pred
