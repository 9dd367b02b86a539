"""Image files to arrays, losing nothing silently.

Palettes, bitmaps and grey become what is asked for where that is exact; what would lose something
(16-bit depth, transparency, colour) is refused with the reason.
"""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from sciffusion.errors import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
NATIVE = {"1": "L", "L": "L", "LA": "RGBA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}
REFUSED = {
    "CMYK": "is CMYK, whose colours depend on a profile",
    "F": "holds floating-point pixels",
    "I": "holds 32-bit pixels",
}


def decode(data: bytes, size: int | None, where: str) -> UInt8[np.ndarray, "h w c"]:
    """One image with the channels it has: 1 grey, 3 colour, 4 colour and opacity.

    Args:
        data: the file's bytes.
        size: the shorter side is resized to it and the longer one cropped; None leaves both.
        where: the file, for messages.

    Raises:
        InputError: unreadable or truncated, animated, or of a depth that does not fit 8 bits.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise InputError(f"{where} has {image.n_frames} frames: save one of them")
            image.load()
            mode = NATIVE.get(image.mode)
            if mode is None:
                reason = REFUSED.get(image.mode, f"has mode {image.mode}, not 8 bits a channel")
                raise InputError(f"{where} {reason}: convert it to 8-bit grey or RGB")
            if image.mode == "P" and "transparency" in image.info:
                mode = "RGBA"
            image = ImageOps.exif_transpose(image).convert(mode)
            if size is not None and image.size != (size, size):
                image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
            array = np.asarray(image)
    except InputError:
        raise
    except Exception as error:  # PIL's decoders raise whatever they stumble over
        raise InputError(f"{where} cannot be read ({error}): repair or remove it") from error
    return array if array.ndim == 3 else array[..., None]


def with_channels(
    x: UInt8[np.ndarray, "h w _"], channels: int, where: str
) -> UInt8[np.ndarray, "h w {channels}"]:
    """The same image with this many channels (1, 3 or 4), if that loses nothing.

    Raises:
        InputError: transparency or colour would be lost.
    """
    if x.shape[-1] == channels:
        return x
    if x.shape[-1] == 4:
        if (x[..., 3] != 255).any():
            raise InputError(f"{where} is partly transparent: pass channels=4 or flatten it")
        x = x[..., :3]
    if channels == 1 and x.shape[-1] == 3:
        if (x != x[..., :1]).any():
            raise InputError(f"{where} is in colour: pass channels=3 or convert it to grey")
        return x[..., :1]
    if x.shape[-1] == 1 and channels > 1:
        x = np.repeat(x, 3, axis=-1)
    if channels == 4:
        x = np.concatenate([x, np.full_like(x[..., :1], 255)], axis=-1)
    return x
