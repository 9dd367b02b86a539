"""Grids that a person can read: small images enlarged by whole numbers, labelled pictures."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from sciffusion.errors import InputError
from sciffusion.viz.write import write_whole

READABLE_PIXELS = 64  # images with a shorter longest side are enlarged to about this
GAP = 2
PAPER, INK = (255, 255, 255), (40, 40, 40)
CHECKER = (255, 225)  # greys behind transparent pixels
FONT_PIXELS = 16
LABEL_PIXELS = 14  # below a picture


def image_grid(
    x: UInt8[np.ndarray, "n h w c"],
    columns: int | None = None,
    row_labels: Sequence[str] = (),
    scale: int | None = None,
) -> Image.Image:
    """Images in reading order, `columns` a row, on white.

    Args:
        x: (N, H, W, C) with 1, 3 or 4 channels; transparency shows a checkerboard.
        columns: a row; about a square by default.
        row_labels: a text left of each row; none by default.
        scale: each pixel becomes scale x scale; by default tiny images grow to about 64 pixels.

    Raises:
        InputError: not uint8 (N, H, W, C), no images, or another number of labels than rows.
    """
    x = np.asarray(x)
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] not in (1, 3, 4) or x.size == 0:
        raise InputError(
            f"a grid needs uint8 images (N, H, W, C) with C 1, 3 or 4, got {x.dtype} {x.shape}; "
            "convert them first"
        )
    n, h, w, _ = x.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    if row_labels and len(row_labels) != rows:
        raise InputError(f"{len(row_labels)} labels for {rows} rows of images; give one a row")
    scale = scale or max(1, round(READABLE_PIXELS / max(h, w)))
    cell_h, cell_w = h * scale + GAP, w * scale + GAP
    margin = max((math.ceil(font().getlength(label)) for label in row_labels), default=0)
    margin += 2 * FONT_PIXELS // 2 if row_labels else 0
    height = max(cell_h, FONT_PIXELS + GAP) if row_labels else cell_h  # labels must not collide
    sheet = Image.new("RGB", (margin + columns * cell_w + GAP, rows * height + GAP), PAPER)
    for i, pixels in enumerate(_over_checker(x)):
        row, column = divmod(i, columns)
        picture = Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1))
        sheet.paste(picture, (margin + GAP + column * cell_w, GAP + row * height))
    draw = ImageDraw.Draw(sheet)
    for row, label in enumerate(row_labels):
        place = (margin - FONT_PIXELS // 2, row * height + GAP + h * scale // 2)
        draw.text(place, label, INK, font=font(), anchor="rm")
    return sheet


def picture_grid(
    pictures: Sequence[Image.Image], columns: int | None = None, labels: Sequence[str] = ()
) -> Image.Image:
    """Pictures in reading order on white.

    Args:
        pictures: RGBA, all of one size.
        columns: a row; about a square by default.
        labels: a text below each, shortened to fit; none by default.

    Raises:
        InputError: no pictures, or another number of labels.
    """
    n = len(pictures)
    if not n:
        raise InputError("a grid without pictures; give at least one")
    if labels and len(labels) != n:
        raise InputError(f"{len(labels)} labels for {n} pictures; give one each")
    columns = columns or math.ceil(math.sqrt(n))
    width, height = pictures[0].size
    full = height + (LABEL_PIXELS + 10 if labels else 0)
    sheet = Image.new("RGB", (columns * width, math.ceil(n / columns) * full), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        sheet.paste(picture, (column * width, row * full), picture)
        if labels:
            text = _shortened(labels[i], width - 8)
            place = (column * width + width // 2, row * full + height + LABEL_PIXELS // 2)
            draw.text(place, text, INK, font=font(LABEL_PIXELS), anchor="mm")
    return sheet


def png_bytes(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def save_grid(path: str | os.PathLike[str], grid: Image.Image) -> Path:
    """Write a grid as PNG.

    Raises:
        InputError: the path cannot be written.
    """
    return write_whole(png_bytes(grid), path)


def _over_checker(x: UInt8[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n h w 3"]:
    """All images as RGB."""
    if x.shape[-1] == 1:
        return x.repeat(3, axis=-1)
    if x.shape[-1] == 3:
        return x
    h, w = x.shape[1:3]
    square = max(1, max(h, w) // 8)
    odd = (np.arange(h)[:, None] // square + np.arange(w) // square) % 2
    back = np.array(CHECKER)[odd][..., None]
    alpha = x[..., 3:].astype(np.float32) / 255
    return (x[..., :3] * alpha + back * (1 - alpha)).round().astype(np.uint8)


@cache
def font(pixels: int = FONT_PIXELS) -> ImageFont.FreeTypeFont:
    """The letters of labels."""
    # matplotlib carries DejaVu Sans, so labels look the same on every machine
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf"), pixels)


def _shortened(text: str, width: int) -> str:
    if font(LABEL_PIXELS).getlength(text) <= width:
        return text
    while text and font(LABEL_PIXELS).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
