"""Scientific generative modelling of images, proteins and molecules on one diffusion core."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciffusion.domains.image import Images

__all__ = ["Images"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The domains' faces, imported when asked for."""
    if name == "Images":
        from sciffusion.domains.image import Images

        return Images
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
