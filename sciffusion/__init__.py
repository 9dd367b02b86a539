"""Scientific generative modelling of images, proteins and molecules on one diffusion core."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciffusion.domains.image import Images
    from sciffusion.domains.molecule import Conformers
    from sciffusion.domains.protein import Backbones

__all__ = ["Backbones", "Conformers", "Images"]
__version__ = "0.1.0"

_FACES = {"Images": "image", "Conformers": "molecule", "Backbones": "protein"}


def __getattr__(name: str) -> Any:
    """The domains' faces, imported when asked for."""
    if name not in _FACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"sciffusion.domains.{_FACES[name]}"), name)
