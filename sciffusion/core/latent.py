"""The ODE's latent: x -> the noise that the probability-flow ODE makes it from, and back.

The map is one to one (Song et al. 2021, sec. 4.3), so samples can be taken to their noise, mixed
there along the sphere (`slerp`; a straight line would fall into the hollow middle of a Gaussian)
and brought back. The adaptive solver walks both ways; its tolerance is the round trip's.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser, State
from sciffusion.core.parameterization import times as scaled
from sciffusion.core.rng import Rng
from sciffusion.core.samplers.ode import DormandPrince
from sciffusion.core.spaces import Space

STARTS = 8
"""Rounds of finding where the last jump to the data began, at most."""


def precise() -> DormandPrince:
    """A solver whose round trip is well under 1e-3."""
    return DormandPrince(rtol=1e-5, atol=1e-5)


@torch.no_grad()
def encode(
    denoiser: Denoiser,
    x0: Float[Tensor, "b ..."],
    cond: Cond | None = None,
    solver: DormandPrince | None = None,
) -> Float[Tensor, "b ..."]:
    """x_1, from which `decode` (any ODE sampler) comes back to x0.

    Args:
        denoiser: gives at least a velocity.
        x0: samples at t = 0, in the denoiser's space.

    Raises:
        TypeError: the denoiser has no velocity.
    """
    solver = solver or precise()
    solver.check(denoiser)
    schedule = denoiser.schedule
    cond = denoiser.prepare(Cond() if cond is None else cond)
    state = State(Rng(0, torch.arange(len(x0), device=x0.device)))
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    low, high = torch.atan2(schedule.sigma(ends), schedule.alpha(ends))
    low = torch.maximum(low, torch.atan(torch.tensor(solver.sigma_min, dtype=torch.float64)))
    c = denoiser.coefficients(schedule.t_of_log_snr(-2 * low.tan().log()), x0.ndim)
    # The last step down jumps to x0hat: it began where x_t = alpha x0 + sigma epshat(x_t).
    x = scaled(c.alpha, x0)
    for _ in range(STARTS):
        moved = scaled(c.alpha, x0) + scaled(c.sigma, denoiser(x, c.t, cond, state).eps)
        done = bool((moved - x).abs().amax() <= 1e-7 * x0.abs().amax())
        x = moved
        if done:
            break
    y = solver.walk(denoiser, scaled(1 / c.norm, x), low, high, cond, state)
    return scaled(denoiser.coefficients(ends[1], x0.ndim).norm, y)


def decode(
    denoiser: Denoiser,
    x1: Float[Tensor, "b ..."],
    cond: Cond | None = None,
    solver: DormandPrince | None = None,
) -> Float[Tensor, "b ..."]:
    """x0 of the latent x_1."""
    solver, shape = solver or precise(), tuple(x1.shape[1:])
    index = torch.arange(len(x1), device=x1.device)
    return solver(denoiser, shape, cond, index=index, x=x1, dtype=x1.dtype, device=x1.device).x


def slerp(
    a: Float[Tensor, "b ..."],
    b: Float[Tensor, "b ..."],
    weight: float | Tensor,
    space: Space,
    cond: Cond,
) -> Float[Tensor, "b ..."]:
    """From a (weight 0) to b (weight 1) along the sphere of the space's noise; norms go evenly.

    Args:
        weight: one for all, or (B,).
    """
    w = torch.as_tensor(weight, dtype=a.dtype, device=a.device)
    w = w.view(-1, *[1] * (a.ndim - 1)) if w.ndim else w

    def dot(u: Tensor, v: Tensor) -> Tensor:
        product = (u * space.precision(v, cond)).flatten(1).sum(1)
        return product.view(-1, *[1] * (a.ndim - 1))

    size_a, size_b = dot(a, a).sqrt(), dot(b, b).sqrt()
    u, v = a / size_a.clamp_min(1e-30), b / size_b.clamp_min(1e-30)
    angle = dot(u, v).clamp(-1, 1).acos()
    near = angle.sin() < 1e-6
    safe = torch.where(near, 1.0, angle.sin())
    mixed = torch.where(
        near,
        (1 - w) * u + w * v,
        (((1 - w) * angle).sin() * u + (w * angle).sin() * v) / safe,
    )
    return mixed * ((1 - w) * size_a + w * size_b)


def interpolate(
    denoiser: Denoiser,
    a: Float[Tensor, "1 ..."],
    b: Float[Tensor, "1 ..."],
    steps: int = 8,
    cond: Cond | None = None,
    solver: DormandPrince | None = None,
) -> Float[Tensor, "steps ..."]:
    """`steps` samples from a to b, both included, evenly spaced in the latent.

    Args:
        a, b: two samples of one shape.
        cond: of one sample; all between share it.

    Raises:
        ValueError: fewer than two steps.
    """
    if steps < 2:
        raise ValueError(f"an interpolation has at least its two ends, not {steps} steps")
    cond = Cond() if cond is None else cond
    pair = encode(denoiser, torch.cat([a, b]), Cond.cat([cond, cond]), solver)
    many = denoiser.prepare(Cond.cat([cond] * steps))
    first, last = (pair[k : k + 1].expand(steps, *pair.shape[1:]) for k in (0, 1))
    weight = torch.linspace(0, 1, steps, dtype=pair.dtype, device=pair.device)
    return decode(denoiser, slerp(first, last, weight, denoiser.space, many), many, solver)
