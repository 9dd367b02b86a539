"""Images: `Images.from_pretrained(run).sample(n=16, label=3)`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciffusion.core.samplers import Sampler
    from sciffusion.domains.image.domain import ImageSamples

__all__ = ["Images"]


class Images:
    """The image domain's face in Python.

    Args:
        domain, denoiser, config: from `domains.base.load_model`; use `from_pretrained`.
        device: where it samples.
    """

    def __init__(self, domain: Any, denoiser: Any, config: dict[str, Any], device: Any) -> None:
        self.domain, self.denoiser, self.config = domain, denoiser.to(device), config
        self.device = device

    @classmethod
    def from_pretrained(cls, path: str | Path, device: str = "auto") -> Images:
        """A trained run's directory, or a .safetensors file with its config.json beside it.

        Raises:
            InputError: the files cannot be used.
        """
        from sciffusion.domains.base import choose_device, load_model

        return cls(*load_model(path), choose_device(device))

    def sample(
        self,
        n: int = 16,
        label: int | str | None = None,
        seed: int = 0,
        sampler: Sampler | None = None,
        guidance: float = 1.0,
    ) -> ImageSamples:
        """n pictures: `.x` (n, H, W, C) uint8, `.images` PIL, `.label`.

        Args:
            label: a class, by number or name; by default every class in turn.
            seed: picture i of a seed is always the same.
            sampler: any of `sciffusion.core.samplers`; by default the one the run names.
            guidance: classifier-free scale; 1 is none.

        Raises:
            InputError: a class that the model has not, or n < 1.
        """
        from sciffusion.domains.sampling import draw
        from sciffusion.io.build import build

        sampler = sampler or build(self.config["sampler"])
        request = {"label": label}
        return draw(
            self.domain, self.denoiser, sampler, n, seed, request, guidance, device=self.device
        )
