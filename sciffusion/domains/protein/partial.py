"""Partial diffusion: a structure is noised part of the way and denoised again, and so varied.

x_t = alpha_t x0 + sigma_t z at the time t where sigma/alpha is the noise asked for, in Angstrom;
from there the sampler walks what is left of its own grid (SDEdit, Meng et al. 2022; for proteins
Watson et al. 2023, RFdiffusion).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.geometry import kabsch
from sciffusion.core.parameterization import times as scaled
from sciffusion.core.rng import Rng
from sciffusion.core.samplers import Sampler
from sciffusion.core.schedules import Schedule
from sciffusion.domains.protein.backbone import Backbone
from sciffusion.errors import InputError


def time_of(noise: float, schedule: Schedule) -> Float[Tensor, ""]:
    """Where on the way sigma/alpha is this noise, in Angstrom.

    Raises:
        InputError: no noise, or more than the way begins with.
    """
    one = torch.ones((), dtype=torch.float64)
    most = float(schedule.sigma(one) / schedule.alpha(one))
    if not 0 < noise <= most:
        known = f"and at most {most:g}" if math.isfinite(most) else "and finite"
        raise InputError(f"noise={noise:g} must be more than 0 {known} Angstrom")
    return schedule.t_of_log_snr(-2 * torch.tensor(noise, dtype=torch.float64).log())


def rest_of_way(
    t: Float[Tensor, ""], sampler: Sampler, schedule: Schedule
) -> Float[Tensor, " steps_and_one"]:
    """t, and the times of the sampler's grid that come after it."""
    grid = sampler.grid(sampler.steps, schedule)
    return torch.cat([t[None], grid[grid < t]])


def noised(
    x0: Float[Tensor, "b l 4 3"],
    t: Float[Tensor, ""],
    denoiser: Denoiser,
    cond: Cond,
    seed: int,
    index: Tensor,
) -> Float[Tensor, "b l 4 3"]:
    """x0 at time t; the noise of a sample follows from (seed, its number)."""
    x0 = denoiser.space.project(x0, cond)
    rng = Rng(seed, index.to(x0.device))
    z = denoiser.space.noise(rng, "partial", tuple(x0.shape[1:]), cond, x0.dtype)
    schedule = denoiser.schedule
    return scaled(schedule.alpha(t), x0) + scaled(schedule.sigma(t), z)


def laid_on(backbone: Backbone, original: Backbone) -> Float[np.ndarray, "l 4 3"]:
    """Its coordinates superposed on those of the original, all atoms alike."""
    a, b = (torch.from_numpy(v.coords.astype(np.float64))[None] for v in (backbone, original))
    found: Float[np.ndarray, "l 4 3"] = kabsch(a, b)[0].numpy()
    return found


def rmsd(backbone: Backbone, original: Backbone) -> float:
    """Root mean square distance of N, CA, C and O after superposition, in Angstrom."""
    apart = laid_on(backbone, original) - original.coords
    return float(np.sqrt((apart**2).sum(-1).mean()))
