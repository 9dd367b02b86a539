"""Images: `Images.from_pretrained(run).sample(n=16, label=3)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sciffusion.domains.pretrained import Pretrained

if TYPE_CHECKING:
    from sciffusion.core.samplers import Sampler
    from sciffusion.domains.image.domain import ImageSamples

__all__ = ["Images"]


class Images(Pretrained):
    """The image domain's face in Python; begin with `from_pretrained`."""

    kind = "image"

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
