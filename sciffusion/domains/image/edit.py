"""Editing of a given picture: inpainting, upscaling, deblurring, colouring, variation.

What is known of the result is a linear measurement (`core.inverse`), the noise it may be varied
from a place to begin (`core.editing`); both can be asked for at once. Pixels go from -1 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sciffusion.core.cond import Cond
from sciffusion.core.denoiser import Denoiser
from sciffusion.core.editing import Replacement, noised, resampled, rest_of_way, time_of_level
from sciffusion.core.inverse import SOLVERS
from sciffusion.core.operators import Channels, Mask, Operator, blur, shrink
from sciffusion.core.samplers import Sampler, Twisted
from sciffusion.domains.image.data import to_model
from sciffusion.domains.image.decode import decode, with_channels
from sciffusion.domains.sampling import Edit
from sciffusion.errors import InputError

GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the grey of a picture (ITU-R BT.601)."""
KINDS = ("mask", "upscale", "blur", "colourise")


@dataclass(frozen=True)
class ImageEdit(Edit):
    """What is asked to be done to a picture; configs/request/image.yaml says what each means.

    Args:
        picture: its file; `from` in a configuration.
        channels, size, sigma_data: of the pictures that the network draws.

    Raises:
        InputError: settings or files that make no sense, alone or together.
    """

    picture: str | Path
    channels: int
    size: int
    sigma_data: float
    mask: str | Path | None = None
    upscale: int | None = None
    blur: float | None = None
    colourise: bool = False
    noise: float | None = None
    solver: str = "pigdm"
    std: float = 0.01
    resample: int = 1
    jump: int = 10

    @classmethod
    def of(cls, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> ImageEdit | None:
        """That of a configuration; None where no picture is given."""
        own = {f.name: settings[f.name] for f in fields(cls) if f.name in settings}
        if settings.get("from") is None:
            asked = [name for name in (*KINDS, "noise") if own.get(name)]
            if asked:
                raise InputError(f"{asked[0]}= edits a picture: give from=FILE too")
            return None
        known = {name: facts[name] for name in ("channels", "size", "sigma_data")}
        return cls(picture=settings["from"], **known, **own)

    def __post_init__(self) -> None:
        kinds = [name for name in KINDS if getattr(self, name)]
        if len(kinds) > 1:
            raise InputError(f"{kinds[0]}= and {kinds[1]}= do not go together: choose one")
        if not kinds and self.noise is None:
            raise InputError(
                f"from={self.picture}: say what to do with it: mask=FILE, upscale=N, blur=PIXELS, "
                "colourise=true or noise=LEVEL"
            )
        if self.solver not in (*SOLVERS, "replace"):
            raise InputError(f"solver={self.solver} is not known: {', '.join(SOLVERS)}, replace")
        if self.solver == "replace" and kinds != ["mask"]:
            raise InputError("solver=replace is for a mask: take moments, pigdm or dps here")
        if self.resample < 1 or self.jump < 1:
            raise InputError(f"resample={self.resample} and jump={self.jump} must be at least 1")
        if self.resample > 1 and self.solver != "replace":
            raise InputError(f"resample={self.resample} is for solver=replace: leave it out")
        if not self.std >= 0:
            raise InputError(f"std={self.std} must be 0 or more, where pixels go from -1 to 1")
        if self.upscale is not None and (self.upscale < 2 or self.size % self.upscale):
            raise InputError(
                f"upscale={self.upscale}: the network draws {self.size} x {self.size}, which must "
                "be that many times a whole number of pixels, 2 or more"
            )
        if self.blur is not None and not self.blur > 0:
            raise InputError(f"blur={self.blur} must be a width in pixels, more than 0")
        if self.colourise and self.channels < 3:
            raise InputError("colourise=true: this network draws grey pictures")
        _ = self.known, self.where  # files are read, and refused, before anything is drawn

    @cached_property
    def known(self) -> Float[Tensor, "1 c h w"]:
        """What the file shows."""
        size = self.size // self.upscale if self.upscale else self.size
        return _read(self.picture, "from", size, 1 if self.colourise else self.channels)

    @cached_property
    def where(self) -> Bool[Tensor, "1 1 h w"]:
        """True where a pixel is kept."""
        if self.mask is None:
            return torch.ones(1, 1, self.size, self.size, dtype=torch.bool)
        kept = _read(self.mask, "mask", self.size, 1) < 0
        if not bool(kept.any()) or bool(kept.all()):
            raise InputError(
                f"mask={self.mask} is all {'black' if bool(kept.all()) else 'white'}: white is "
                "drawn anew, black is kept"
            )
        return kept

    @cached_property
    def operator(self) -> Operator | None:
        """What was done to the picture that is sought."""
        if self.upscale:
            return shrink(self.size, self.upscale)
        if self.blur:
            return blur(self.size, self.blur)
        if self.colourise:
            rest = [0.0] * (self.channels - 3)
            return Channels(torch.tensor([[*GREY, *rest]]))
        return None if self.mask is None else Mask(self.where)

    def lead(self, denoiser: Denoiser) -> Denoiser:
        operator = self.operator
        try:
            if operator is None:
                return denoiser
            if self.solver == "replace":
                return Replacement(denoiser, self.known, self.where)
            y = operator(self.known) if isinstance(operator, Mask) else self.known
            device = next((p.device for p in denoiser.parameters()), torch.device("cpu"))
            return SOLVERS[self.solver](
                denoiser, operator, y.to(device), self.std, sigma_data=self.sigma_data
            )
        except (TypeError, ValueError) as error:
            raise InputError(str(error)) from error

    def begin(
        self, denoiser: Denoiser, sampler: Sampler, cond: Cond, seed: int, index: Tensor
    ) -> dict[str, Any]:
        schedule, times, found = denoiser.schedule, None, {}
        if isinstance(sampler, Twisted) and self.operator is None:
            raise InputError("sampler=twisted needs something measured: mask=, upscale= or blur=")
        if isinstance(sampler, Twisted) and self.std == 0:
            raise InputError(
                "sampler=twisted weighs by the likelihood of what is known: give std > 0"
            )
        if self.noise is not None:
            try:
                t = time_of_level(self.noise, schedule)
            except ValueError as error:
                raise InputError(f"{error}, in units where pixels go from -1 to 1") from error
            times = rest_of_way(t, sampler, schedule)
            x0 = self.start.to(index.device).expand(len(index), -1, -1, -1)
            found["x"] = noised(x0, t, denoiser, cond, seed, index)
        if self.resample > 1:
            grid = sampler.grid(sampler.steps, schedule) if times is None else times
            times = resampled(grid, self.resample, self.jump)
        return found | ({} if times is None else {"times": times})

    @property
    def start(self) -> Float[Tensor, "1 c h w"]:
        """The picture that is varied; for a smaller or grey one, what is nearest to it."""
        x, times = self.known.expand(-1, self.channels, -1, -1), self.upscale or 1
        return x.repeat_interleave(times, 2).repeat_interleave(times, 3)


def _read(path: str | Path, name: str, size: int, channels: int) -> Float[Tensor, "1 c h w"]:
    """A picture file, -1 to 1.

    Raises:
        InputError: it cannot be read, or is of another size.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"{name}={path} cannot be read ({error.strerror}): check the path"
        ) from error
    x: np.ndarray = decode(data, None, f"{name}={path}")
    if x.shape[:2] != (size, size):
        raise InputError(
            f"{name}={path} is {x.shape[1]} x {x.shape[0]} pixels; it must be {size} x {size}"
        )
    pixels = torch.from_numpy(with_channels(x, channels, f"{name}={path}").copy())
    return to_model(pixels.permute(2, 0, 1)[None])
