"""Spheres, sticks and meshes drawn into pixels: orthographic, with a depth buffer, in numpy.

Every shape leaves its depth, normal and colour; light, outlines, contact shadows and haze are put
on at the end, over the whole picture at once. What is far fades by transparency, so that one
picture stands on white paper and on a dark page.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image
from scipy.ndimage import gaussian_filter, maximum_filter

SUPERSAMPLE = 2
LIGHT = np.array([-0.35, -0.5, 0.79], np.float32)  # from the upper left (y points down)
INK = 0.17  # grey of outlines
STEP = 0.35  # an outline where depth falls by so much, Angstrom
HAZE = 0.4  # how far the farthest point fades
SHADOW = 0.55  # how dark a deep fold becomes

Colour = Float[np.ndarray, " 3"] | Sequence[float]


class Raster:
    """A picture of shapes given in Angstrom: x to the right, y up, z towards the eye.

    Args:
        width, height: of the picture in pixels.
        scale: pixels an Angstrom; the origin is in the middle.
    """

    def __init__(self, width: int, height: int, scale: float) -> None:
        self.scale = scale * SUPERSAMPLE
        h, w = height * SUPERSAMPLE, width * SUPERSAMPLE
        self._x = ((np.arange(w, dtype=np.float32) + 0.5) - w / 2) / self.scale
        self._y = ((np.arange(h, dtype=np.float32) + 0.5) - h / 2) / self.scale
        self._depth = np.full((h, w), -np.inf, np.float32)
        self._normal = np.zeros((h, w, 3), np.float32)
        self._colour = np.zeros((h, w, 3), np.float32)

    def sphere(self, centre: Float[np.ndarray, " 3"], radius: float, colour: Colour) -> None:
        """Draw a ball; colours are RGB in 0..1."""
        cx, cy, cz = float(centre[0]), -float(centre[1]), float(centre[2])
        window = self._window(cx - radius, cx + radius, cy - radius, cy + radius)
        x, y = self._x[window[1]][None] - cx, self._y[window[0]][:, None] - cy
        height2 = radius**2 - x**2 - y**2
        up = np.sqrt(np.maximum(height2, 0))
        normal = np.stack(np.broadcast_arrays(x, y, up), -1) / radius
        self._put(window, height2 > 0, cz + up, normal, np.asarray(colour, np.float32))

    def stick(
        self,
        a: Float[np.ndarray, " 3"],
        b: Float[np.ndarray, " 3"],
        radius: float,
        colours: tuple[Colour, Colour],
    ) -> None:
        """Draw a cylinder from a to b, half in one colour and half in the other; no caps."""
        a, b = (np.array([p[0], -p[1], p[2]], np.float32) for p in (a, b))
        length = float(np.linalg.norm(b - a))
        if length < 1e-6:
            return
        ux, uy, uz = ((b - a) / length).tolist()
        across = 1 - uz * uz
        if across < 1e-6:  # it points at the eye: its end covers it
            return
        low, high = np.minimum(a, b) - radius, np.maximum(a, b) + radius
        window = self._window(low[0], high[0], low[1], high[1])
        x, y = self._x[window[1]][None] - a[0], self._y[window[0]][:, None] - a[1]
        # the ray (x, y, t): |its distance from the axis|^2 = radius^2 is quadratic in t
        along = x * ux + y * uy
        half_b = -along * uz
        root = half_b**2 - across * (x**2 + y**2 - along**2 - radius**2)
        t = (np.sqrt(np.maximum(root, 0)) - half_b) / across
        s = along + t * uz
        normal = np.stack(np.broadcast_arrays(x - s * ux, y - s * uy, t - s * uz), -1) / radius
        first, second = (np.asarray(c, np.float32) for c in colours)
        colour = np.where((s < length / 2)[..., None], first, second)
        self._put(window, (root > 0) & (s >= 0) & (s <= length), t + a[2], normal, colour)

    def mesh(
        self,
        points: Float[np.ndarray, "v 3"],
        normals: Float[np.ndarray, "v 3"],
        colours: Float[np.ndarray, "v 3"],
        faces: Int[np.ndarray, "f 3"],
    ) -> None:
        """Draw a closed surface of triangles; normals and colours vary between their corners.

        Args:
            points: in Angstrom.
            normals: out of the body, of any length.
            colours: RGB in 0..1.
            faces: three points each, either way round.
        """
        flip = np.array([1, -1, 1], np.float32)  # y points down
        corners = (points.astype(np.float32) * flip)[faces]
        values = np.concatenate([corners[..., 2:], (normals * flip)[faces], colours[faces]], -1)
        low = np.floor(self._pixels(corners.min(1))).astype(int)
        high = np.ceil(self._pixels(corners.max(1))).astype(int)
        h, w = self._depth.shape
        seen = (high >= 0).all(1) & (low[:, 0] < w) & (low[:, 1] < h)
        seen &= (values[..., 3] > 0).any(1)  # the front of the body hides its back
        # those of a size together, each in a square of as many pixels
        side = (high - low).max(1) // 2 * 2 + 2
        for k in np.unique(side[seen]):
            chosen = np.flatnonzero(seen & (side == k))
            for rows in np.array_split(chosen, max(1, len(chosen) * k * k // 2**20)):
                self._fill(corners[rows], values[rows].astype(np.float32), low[rows], int(k))

    def image(self) -> Image.Image:
        """The picture, RGBA on a transparent ground."""
        solid = np.isfinite(self._depth)
        if not solid.any():
            h, w = self._depth.shape
            return Image.new("RGBA", (w // SUPERSAMPLE, h // SUPERSAMPLE))
        back, front = self._depth[solid].min(), self._depth[solid].max()
        depth = np.where(solid, self._depth, back)

        light = LIGHT / np.linalg.norm(LIGHT)
        facing = self._normal @ light
        halfway = light + np.array([0, 0, 1], np.float32)
        shine = np.maximum(self._normal @ (halfway / np.linalg.norm(halfway)), 0) ** 40
        # depth darkening (Luft 2006): what lies behind its surroundings is in their shadow
        fold = gaussian_filter(depth, 0.5 * self.scale) - depth
        shade = (0.62 + 0.38 * np.clip(facing, -0.5, 1)) * (1 - SHADOW * np.clip(fold / 3, 0, 1))
        rgb = self._colour * shade[..., None] + 0.28 * shine[..., None]

        nearest = maximum_filter(self._depth, 2 * SUPERSAMPLE - 1)
        with np.errstate(invalid="ignore"):
            line = nearest - self._depth > STEP
        rgb = np.where(line[..., None], np.where(solid[..., None], 0.45 * rgb, INK), rgb)
        haze = HAZE * (front - np.maximum(nearest, back)) / max(front - back, 4.0)
        alpha = np.where(solid | line, 1 - haze, 0)
        return _reduce(np.clip(rgb, 0, 1), alpha)

    def _pixels(self, xy: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2"]:
        h, w = self._depth.shape
        return xy[:, :2] * self.scale + np.array([w - 1, h - 1], np.float32) / 2

    def _fill(
        self,
        corners: Float[np.ndarray, "t 3 3"],
        values: Float[np.ndarray, "t 3 7"],
        low: Int[np.ndarray, "t 2"],
        side: int,
    ) -> None:
        """Draw triangles that lie in squares of pixels: depth, normal and colour of the corners."""
        h, w = self._depth.shape
        steps = np.arange(side)
        column = (low[:, 0, None] + steps)[:, None]
        row = (low[:, 1, None] + steps)[..., None]
        place = self._pixels(corners.reshape(-1, 3)).reshape(-1, 3, 2)
        (ax, ay), (bx, by), (cx, cy) = (p.T[..., None, None] for p in place.swapaxes(0, 1))
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        area[area == 0] = np.nan  # seen from its edge: it covers nothing
        second = ((column - ax) * (cy - ay) - (cx - ax) * (row - ay)) / area
        third = ((bx - ax) * (row - ay) - (column - ax) * (by - ay)) / area
        first = 1 - second - third
        inside = (first >= 0) & (second >= 0) & (third >= 0)
        inside &= (column >= 0) & (column < w) & (row >= 0) & (row < h)
        t, i, j = np.nonzero(inside)
        shares = np.stack([first[t, i, j], second[t, i, j], third[t, i, j]], -1)
        found = np.einsum("pk,pkc->pc", shares, values[t])
        near = np.argsort(
            found[:, 0], kind="stable"
        )  # of those that meet in a pixel the last stays
        where, found = (row[t, i, 0] * w + column[t, 0, j])[near], found[near]
        nearest = np.full(h * w, -1)
        nearest[where] = np.arange(len(where))
        pixels = np.flatnonzero(nearest >= 0)
        found = found[nearest[pixels]]
        front = found[:, 0] > self._depth.reshape(-1)[pixels]
        pixels, found = pixels[front], found[front]
        length = np.linalg.norm(found[:, 1:4], axis=1, keepdims=True)
        self._depth.reshape(-1)[pixels] = found[:, 0]
        self._normal.reshape(-1, 3)[pixels] = found[:, 1:4] / np.maximum(length, 1e-6)
        self._colour.reshape(-1, 3)[pixels] = found[:, 4:]

    def _window(self, left: float, right: float, top: float, bottom: float) -> tuple[slice, slice]:
        columns = np.searchsorted(self._x, [left, right])
        rows = np.searchsorted(self._y, [top, bottom])
        return slice(*rows.tolist()), slice(*columns.tolist())

    def _put(
        self,
        window: tuple[slice, slice],
        inside: Bool[np.ndarray, "h w"],
        depth: Float[np.ndarray, "h w"],
        normal: Float[np.ndarray, "h w 3"],
        colour: Float[np.ndarray, "*hw 3"],
    ) -> None:
        seen = inside & (depth > self._depth[window])
        self._depth[window][seen] = depth[seen]
        self._normal[window][seen] = normal[seen]
        self._colour[window][seen] = colour[seen] if colour.ndim == 3 else colour


def _reduce(rgb: Float[np.ndarray, "h w 3"], alpha: Float[np.ndarray, "h w"]) -> Image.Image:
    """Means over squares of pixels, each weighted with how much of it there is."""
    h, w = alpha.shape
    k = SUPERSAMPLE
    rgba = np.concatenate([rgb * alpha[..., None], alpha[..., None]], -1)
    rgba = rgba.reshape(h // k, k, w // k, k, 4).mean((1, 3))
    rgba[..., :3] /= np.maximum(rgba[..., 3:], 1e-6)
    return Image.fromarray((rgba * 255).round().astype(np.uint8), "RGBA")
