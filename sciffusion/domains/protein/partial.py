"""Partial diffusion: a structure is noised part of the way and denoised again, and so varied.

x_t = alpha_t x0 + sigma_t z at the time t where sigma/alpha is the noise asked for, in Angstrom;
from there the sampler walks what is left of its own grid (SDEdit, Meng et al. 2022; for proteins
Watson et al. 2023, RFdiffusion).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sciffusion.core.editing import noised, rest_of_way, time_of_level
from sciffusion.core.geometry import kabsch
from sciffusion.core.schedules import Schedule
from sciffusion.domains.protein.backbone import Backbone
from sciffusion.errors import InputError

__all__ = ["laid_on", "noised", "rest_of_way", "rmsd", "time_of"]


def time_of(noise: float, schedule: Schedule) -> Float[Tensor, ""]:
    """Where on the way sigma/alpha is this noise, in Angstrom.

    Raises:
        InputError: no noise, or more than the way begins with.
    """
    try:
        return time_of_level(noise, schedule)
    except ValueError as error:
        raise InputError(f"{error} Angstrom") from error


def laid_on(backbone: Backbone, original: Backbone) -> Float[np.ndarray, "l 4 3"]:
    """Its coordinates superposed on those of the original, all atoms alike."""
    a, b = (torch.from_numpy(v.coords.astype(np.float64))[None] for v in (backbone, original))
    found: Float[np.ndarray, "l 4 3"] = kabsch(a, b)[0].numpy()
    return found


def rmsd(backbone: Backbone, original: Backbone) -> float:
    """Root mean square distance of N, CA, C and O after superposition, in Angstrom."""
    apart = laid_on(backbone, original) - original.coords
    return float(np.sqrt((apart**2).sum(-1).mean()))
