"""Bits per dimension of images: the exact discrete bound along the Karras grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sciffusion.core.denoiser import Denoiser
from sciffusion.core.rng import Rng
from sciffusion.core.times import Karras
from sciffusion.core.vlb import discrete_bound
from sciffusion.domains.image.data import ImageDataset
from sciffusion.metrics.bootstrap import mean_interval
from sciffusion.metrics.table import Row


def bits_row(denoiser: Denoiser, domain: Any, settings: Mapping[str, Any]) -> Row:
    """Upper bound of bits per dimension of test images, beside that of training images."""
    bound = {}
    grid = Karras()(settings["bits_steps"], denoiser.schedule)
    for name, images in (("train", domain.data.train), ("test", domain.data.test)):
        data = ImageDataset(images)
        rows = torch.arange(min(settings["bits_images"], len(data)))
        x0, cond = domain.encode(data.gather(rows), None)
        device = next(denoiser.parameters()).device
        rng = Rng(settings["seed"], rows.to(device))
        out = discrete_bound(denoiser, x0.to(device), cond.to(device), rng, times=grid)
        bound[name] = out.total.double().cpu().numpy()
    interval = mean_interval(bound["test"], seed=settings["seed"])
    return Row(
        name="bits per dimension (bound)",
        value=interval.value,
        low=interval.low,
        high=interval.high,
        n=len(bound["test"]),
        floor=float(bound["train"].mean()),
        unit="bits",
        better="lower",
        note=f"exact discrete bound of 8-bit pixels, T = {settings['bits_steps']}; floor: training",
    )
