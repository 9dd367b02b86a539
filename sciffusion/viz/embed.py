"""A picture as text inside a page."""

from __future__ import annotations

import base64

from PIL import Image

from sciffusion.errors import InputError
from sciffusion.viz.grid import png_bytes


def data_uri(picture: bytes | Image.Image) -> str:
    """The address that holds a PIL image, or the bytes of a PNG, JPEG or SVG file.

    Raises:
        InputError: the bytes are of another kind.
    """
    data = png_bytes(picture) if isinstance(picture, Image.Image) else picture
    return f"data:{_media_type(data)};base64,{base64.b64encode(data).decode()}"


def _media_type(data: bytes) -> str:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.lstrip().startswith((b"<?xml", b"<svg")):
        return "image/svg+xml"
    raise InputError(
        f"a figure of {len(data)} bytes is neither PNG, JPEG nor SVG; give it as one of these"
    )
