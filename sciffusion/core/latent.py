"""Between two samples, through the latents that the probability-flow ODE makes them from.

The map is one to one (Song et al. 2021, sec. 4.3; see `likelihood.ProbabilityFlow`), so samples can
be taken to their noise, mixed there along the sphere (`slerp`; a straight line would fall into the
hollow middle of a Gaussian) and brought back.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.likelihood import ProbabilityFlow
from sciffusion.core.spaces import Space


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
    flow: ProbabilityFlow,
    a: Float[Tensor, "1 ..."],
    b: Float[Tensor, "1 ..."],
    steps: int = 8,
    cond: Cond | None = None,
) -> Float[Tensor, "steps ..."]:
    """`steps` samples from a to b, both included, evenly spaced in the latent.

    Args:
        flow: of the denoiser; the round trip is as close as its tolerances.
        a, b: two samples of one shape.
        cond: of one sample; all between share it.

    Raises:
        ValueError: fewer than two steps.
    """
    if steps < 2:
        raise ValueError(f"an interpolation has at least its two ends, not {steps} steps")
    cond = Cond() if cond is None else cond
    pair = flow.encode(torch.cat([a, b]), Cond.cat([cond, cond]))
    many = flow.denoiser.prepare(Cond.cat([cond] * steps))
    first, last = (pair[k : k + 1].expand(steps, *pair.shape[1:]) for k in (0, 1))
    weight = torch.linspace(0, 1, steps, dtype=pair.dtype, device=pair.device)
    return flow.decode(slerp(first, last, weight, flow.denoiser.space, many), many)
