"""Consistency: networks that jump from any noise level straight to the data.

f(x_t, t) is where the probability-flow path through x_t ends (Song et al. 2023, "Consistency
models"): f(x, no noise) = x, and f is one and the same all along a path. Training takes two points
of a path at levels t > r and pulls f(x_t, t) towards f(x_r, r), held fixed. x_r is either x_t's
own data with less of its noise (consistency training; from a denoiser's weights: easy consistency
tuning, Geng et al. 2024), or a teacher's ODE step from x_t (consistency distillation).

Levels are s = sigma / alpha and y = x / alpha = x0 + s eps, so all schedules are served.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import PREVIOUS, Denoiser, Gives, Prediction
from sciffusion.core.parameterization import Coefficients, Preconditioned, eps_of_x0, times
from sciffusion.core.rng import Rng
from sciffusion.core.times import LogNormal, TimeDistribution

LOWEST = 1e-4
"""Levels under this share of sigma_data count as no noise."""


class ConsistencyPreconditioned(Preconditioned):
    """EDM's form with its boundary at sigma_min: f(x, sigma_min) = x exactly (Song et al. 2023,
    app. C): c_skip = sd^2 / ((s - sigma_min)^2 + sd^2), c_out = (s - sigma_min) sd / sqrt(s^2 +
    sd^2). At sigma_min = 0 it is EDM's own, whose boundary is at no noise, as easy consistency
    tuning has it.

    Args:
        sigma_data: standard deviation of the data.
        sigma_min: in units of sigma/alpha.
    """

    def __init__(self, sigma_data: float, sigma_min: float = 0.002) -> None:
        super().__init__(sigma_data)
        if not 0 <= sigma_min < sigma_data:
            raise ValueError(f"sigma_min={sigma_min} must lie in [0, sigma_data={sigma_data:.3g})")
        self.sigma_min = float(sigma_min)

    def _beyond(self, c: Coefficients) -> Tensor:
        return c.sigma - self.sigma_min * c.alpha

    def gain(self, c: Coefficients) -> Tensor:
        return self._beyond(c) * self.sigma_data / self._scale(c)

    def _skip(self, c: Coefficients) -> Tensor:
        data = self.sigma_data**2 * c.alpha
        return data / (self._beyond(c) ** 2 + data * c.alpha)

    def to_x0_eps(self, raw: Tensor, x: Tensor, c: Coefficients) -> tuple[Tensor, Tensor]:
        x0 = times(self._skip(c), x) + times(self.gain(c), raw)
        return x0, eps_of_x0(x0, x, c)

    def target(self, x0: Tensor, eps: Tensor, c: Coefficients) -> Tensor:
        x = times(c.alpha, x0) + times(c.sigma, eps)
        return times(1 / self.gain(c), x0 - times(self._skip(c), x))


class Closing:
    """How near r is to t: r/t = 1 - n(t) / q^a, n(t) = 1 + k sigmoid(-b t) (Geng et al. 2024).

    The stage a rises by one in equal parts of the training, so that the two levels close in on each
    other. In the first stage r is mostly 0: plain denoising, which is where the weights come from.

    Args:
        q: each stage divides the gap by this.
        stages: the last stage.
        first: the first one; a teacher's step should not be long, so distillation begins later.
        k, b: make the gap wider at low noise; b is of t in units of sigma_data (the paper's b = 1
            is of sigma_data = 0.5).
    """

    def __init__(
        self, q: float = 2.0, stages: int = 8, first: int = 1, k: float = 8.0, b: float = 0.5
    ) -> None:
        if q <= 1 or not 1 <= first <= stages:
            raise ValueError(
                f"closing needs q > 1 and 1 <= first <= stages: {q}, {first}, {stages}"
            )
        self.q, self.stages, self.first, self.k, self.b = q, stages, first, k, b

    def stage(self, progress: float) -> int:
        """a, at this share of the training."""
        count = self.stages - self.first + 1
        return self.first + min(count - 1, int(progress * count))

    def __call__(self, t: Float[Tensor, " b"], progress: float) -> Float[Tensor, " b"]:
        """r/t of levels t in units of sigma_data; 0 where r would be negative."""
        n = 1 + self.k * torch.sigmoid(-self.b * t)
        return (1 - n * self.q ** -self.stage(progress)).clamp_min(0)


class ConsistencyLoss(nn.Module):
    """Consistency training, from nothing or from a denoiser's weights (easy consistency tuning).

    The loss of a sample is sd / (t - r) d, d = sqrt(D^2 + huber^2) - huber of the root mean square
    difference D = |f(x_t, t) - f(x_r, r)| / sd. Both answers see the same data, noise, condition
    and dropout masks; the second has no gradient. A self-conditioned network is shown nothing: a
    jump must not lean on a thought of its own.

    Args:
        sigma_data: sd, standard deviation of the data.
        times: distribution of t; by default ln(t / sd) ~ N(-0.4, 2) (Song & Dhariwal 2024's -1.1 of
            sigma_data 0.5). What falls beyond the schedule's end is put there.
        closing: r/t.
        huber: pseudo-Huber constant (Song & Dhariwal 2024: 0.00054 a number at sigma_data 0.5);
            None is D^2, which in few dimensions is needed for the right law: what the other pulls
            to is a median, not the mean.
        total_steps: of the training, for `closing`.
        reach: levels beyond this many sd count as pure noise; a schedule may have none to end with.
    """

    gives: ClassVar[Gives] = "jump"

    def __init__(
        self,
        sigma_data: float,
        times: TimeDistribution | None = None,
        closing: Closing | None = None,
        huber: float | None = 1e-3,
        total_steps: int = 1,
        reach: float = 160.0,
    ) -> None:
        super().__init__()
        if huber is not None and not huber > 0:
            raise ValueError(f"huber={huber} must be positive, or null for the squared difference")
        self.sigma_data, self.huber = float(sigma_data), huber
        self.times = times or LogNormal(-0.4, 2.0, self.sigma_data)
        self.closing, self.total_steps = closing or Closing(), max(1, total_steps)
        self.reach = reach * self.sigma_data

    def forward(
        self,
        denoiser: Denoiser,
        x0: Float[Tensor, "b ..."],
        cond: Cond | None,
        rng: Rng,
    ) -> Float[Tensor, " b"]:
        """The loss of each sample; times and noises follow from `rng`, the stage from its step."""
        cond = denoiser.space.prepare(cond or Cond())
        s, r, low = self.levels(denoiser, rng)
        t, t_r = self._time(denoiser, s), self._time(denoiser, r.clamp_min(low))
        eps = denoiser.space.noise(rng, "train noise", tuple(x0.shape[1:]), cond, x0.dtype)
        c, c_r = denoiser.coefficients(t, x0.ndim), denoiser.coefficients(t_r, x0.ndim)
        x_t = times(c.alpha, x0) + times(c.sigma, eps)
        y_r = self.nearer(x0, eps, x_t, t, t_r, s, r, cond)
        if getattr(denoiser, "self_conditioned", False):
            cond = cond.with_structure(**{PREVIOUS: torch.zeros_like(x0)})
        masks = _random_state(x0.device)
        found = denoiser(x_t, t, cond).x0
        with torch.no_grad(), _again(masks, x0.device):
            target = denoiser(times(c_r.alpha, y_r), t_r, cond).x0
        inside = (r > denoiser.sigma_min).view(c.alpha.shape)
        target = torch.where(inside, target, y_r)  # at the boundary f(x) = x
        square = denoiser.space.mean(((found - target) / self.sigma_data) ** 2, cond)
        if self.huber is not None:
            square = (square + self.huber**2).sqrt() - self.huber
        return times(self.sigma_data / (s - r), square)

    def levels(self, denoiser: Denoiser, rng: Rng) -> tuple[Tensor, Tensor, float]:
        """(t, r, the lowest that the network is asked at), all sigma/alpha; r = the denoiser's
        `sigma_min` where the answer is known.
        """
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        least, most = _level(denoiser, ends).tolist()
        low = max(least, denoiser.sigma_min, LOWEST * self.sigma_data)
        s = _level(denoiser, self.times.sample(rng, denoiser.schedule))
        s = s.clamp(1.001 * low, min(most, self.reach))
        r = s * self.closing(s / self.sigma_data, rng.step / self.total_steps)
        return s, torch.where(r <= low, denoiser.sigma_min, r), low

    def _time(self, denoiser: Denoiser, level: Tensor) -> Tensor:
        t = denoiser.schedule.t_of_log_snr(-2 * level.log())
        return torch.where(level >= self.reach, 1.0, t.clamp_max(1.0))

    def nearer(
        self,
        x0: Float[Tensor, "b ..."],
        eps: Float[Tensor, "b ..."],
        x_t: Float[Tensor, "b ..."],
        t: Float[Tensor, " b"],
        t_r: Float[Tensor, " b"],
        s: Float[Tensor, " b"],
        r: Float[Tensor, " b"],
        cond: Cond,
    ) -> Float[Tensor, "b ..."]:
        """y at level r, further down the path of x_t at time t and level s."""
        return x0 + times(_rows(r, x0), eps)


class ConsistencyDistillation(ConsistencyLoss):
    """Consistency distillation: x_r is a teacher's ODE step from x_t (Song et al. 2023, alg. 2).

    Args:
        solver: heun (two calls of the teacher) or euler.
        more: arguments of `ConsistencyLoss`; the gap should be small from the start, as
            Closing(first=4).
    """

    def __init__(self, *args: object, solver: str = "heun", **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        if solver not in ("heun", "euler"):
            raise ValueError(f"solver={solver} is not known: heun or euler")
        self.solver = solver
        self._teacher: list[Denoiser] = []  # in a list: no part of what is trained and saved

    def learn_from(self, teacher: Denoiser) -> None:
        """Take this denoiser for the teacher.

        Raises:
            ValueError: it has no ODE.
        """
        if teacher.gives == "jump":
            raise ValueError("the teacher is a consistency network itself: it has no ODE to follow")
        self._teacher[:] = [teacher.eval().requires_grad_(False)]

    @torch.no_grad()
    def nearer(
        self,
        x0: Tensor,
        eps: Tensor,
        x_t: Tensor,
        t: Tensor,
        t_r: Tensor,
        s: Tensor,
        r: Tensor,
        cond: Cond,
    ) -> Tensor:
        if not self._teacher:
            raise ValueError("consistency distillation needs a teacher: call learn_from first")
        teacher = self._teacher[0].to(x0.device)
        first = _looked_twice(teacher, x_t, t, cond)
        rows = _rows(r, x0)
        y = first.x0 + times(rows, first.eps)
        if self.solver == "euler":
            return y
        c_r = teacher.coefficients(t_r, x0.ndim)
        other = _looked_twice(teacher, times(c_r.alpha, y), t_r, cond)
        # To the boundary there is no slope at the end: Euler's step, as Karras et al. 2022.
        inside = (rows > 0) & (c_r.sigma > 0)
        bend = times(0.5 * (rows - _rows(s, x0)), other.eps - first.eps)
        return torch.where(inside, y + bend, y)


def _looked_twice(teacher: Denoiser, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
    """What a teacher says of x, shown its own first thought where it is self-conditioned."""
    if getattr(teacher, "self_conditioned", False):
        thought = teacher(x, t, cond).x0
        cond = cond.with_structure(**{PREVIOUS: thought})
    said: Prediction = teacher(x, t, cond)
    return said


def _level(denoiser: Denoiser, t: Tensor) -> Tensor:
    return (-0.5 * denoiser.schedule.log_snr(t)).exp()


def _rows(v: Float[Tensor, " b"], like: Tensor) -> Tensor:
    return v.view(-1, *[1] * (like.ndim - 1))


def _random_state(device: torch.device) -> list[Tensor]:
    """Where the generators stand that dropout draws from."""
    found = [torch.get_rng_state()]
    return [*found, torch.cuda.get_rng_state(device)] if device.type == "cuda" else found


@contextmanager
def _again(state: list[Tensor], device: torch.device) -> Iterator[None]:
    """Inside, the generators draw once more what they drew after `state`."""
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state(state[1], device)
    yield
