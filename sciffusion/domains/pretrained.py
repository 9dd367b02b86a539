"""What every domain's face in Python has: a trained model, ready on a device.

PyTorch is imported only when a model is loaded, so that `import sciffusion` stays quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self


class Pretrained:
    """A trained model of a domain.

    Args:
        domain, denoiser, config: from `domains.base.load_model`; use `from_pretrained`.
        device: where it samples.
    """

    kind: ClassVar[str]
    """The domain's name."""

    def __init__(self, domain: Any, denoiser: Any, config: dict[str, Any], device: Any) -> None:
        from sciffusion.domains.base import choose_precision

        self.domain, self.denoiser, self.config = domain, denoiser.to(device), config
        self.denoiser.autocast = choose_precision("auto", device)
        self.device = device

    @classmethod
    def from_pretrained(cls, path: str | Path | None = None, device: str = "auto") -> Self:
        """A trained run's directory, or a .safetensors file with its config.json beside it.

        Args:
            path: by default the weights that come with sciffusion.

        Raises:
            InputError: the files cannot be used, or there are none.
        """
        from sciffusion.domains.base import choose_device, load_model
        from sciffusion.resources import weights

        return cls(*load_model(weights(cls.kind) if path is None else path), choose_device(device))
