"""Rasterization of triangle meshes to sampling maps: the source position of each pixel of the result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.face.face import Float

_SUBPIXEL_BITS = 4
_EDGE_MARGIN = 1e-3
"""Pixels by which triangles are widened, so that rounding leaves no gaps between neighbours."""
_MIN_AREA = 1e-3
"""Twice the least area, in square pixels, of a triangle that is painted."""
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class PixelRect:
    """A rectangle of pixels: left, top inclusive; right, bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def bounding(cls, points: Float, size: tuple[int, int], margin: float = 0.0) -> PixelRect:
        """Return the bounds of points (n, 2) and a `margin`, clipped to an image of `size` (width, height)."""
        # Python's numbers, since NumPy takes ten times as long for single ones.
        low, high = points.min(0).tolist(), points.max(0).tolist()
        left, top = (min(max(math.floor(v - margin), 0), n) for v, n in zip(low, size, strict=True))
        right, bottom = (min(max(math.ceil(v + margin) + 1, 0), n) for v, n in zip(high, size, strict=True))
        return cls(left, top, max(right, left), max(bottom, top))

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.top

    @property
    def is_empty(self) -> bool:
        """Whether it holds no pixel."""
        return self.width < 1 or self.height < 1

    def crop(self, image: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return the view of an image (H, W, …) inside the rectangle."""
        return image[self.top : self.bottom, self.left : self.right]

    def intersection(self, other: PixelRect) -> PixelRect:
        """Return the intersection with another rectangle; empty if they do not overlap."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return PixelRect(left, top, max(right, left), max(bottom, top))

    def shift(self, x: int, y: int) -> PixelRect:
        """Return the rectangle moved to the right and down by whole pixels."""
        return PixelRect(self.left + x, self.top + y, self.right + x, self.bottom + y)


def interpolate_mesh(
    target: Float, values: Float, triangles: NDArray[np.int32], region: PixelRect
) -> tuple[Float, NDArray[np.bool_]]:
    """Interpolate vertex values linearly over the triangles, painted in the order given (far ones first).

    `target` float32 (n, 2) pixel positions; `values` float32 (n, channels). Returns float32
    (channels, height, width) of the region, and a mask of its pixels whose centre is in a triangle. A triangle
    whose corners run clockwise in the picture is front-facing; back-facing ones and those without area are left
    out.
    """
    # One array (2, triangles) per corner: NumPy is slow along short axes.
    x, y = (
        target[:, axis].take(triangles.T) - np.float32(start)
        for axis, start in ((0, region.left), (1, region.top))
    )
    rise, run = y[[1, 2, 0]] - y, x[[1, 2, 0]] - x
    area = rise[0] * run[2] - run[0] * rise[2]
    facing = np.flatnonzero(area > _MIN_AREA)
    size = (region.height, region.width)
    if not len(facing) or region.is_empty:
        return np.zeros((values.shape[1], *size), np.float32), np.zeros(size, np.bool_)
    x, y, run, rise = (of_all.take(facing, axis=1) for of_all in (x, y, run, rise))
    owner = _rasterize(x, y, run, rise, size)
    at_corners = values.T.take(triangles.T.take(facing, axis=1), axis=1)
    planes = _fit_planes(at_corners, x[0], y[0], run, rise)
    columns, rows = np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32)[:, None]
    spread = np.empty((values.shape[1], *size), np.float32)
    for index, (across, down, start, least, most) in enumerate(planes):
        channel = spread[index]
        across.take(owner, out=channel, mode="clip")
        channel *= columns
        channel += down.take(owner, mode="clip") * rows
        channel += start.take(owner, mode="clip")
        # A triangle seen edge-on is steep: its widened edge would extrapolate beyond its values.
        np.maximum(channel, least.take(owner, mode="clip"), out=channel)
        np.minimum(channel, most.take(owner, mode="clip"), out=channel)
    return spread, owner >= 0


def _rasterize(x: Float, y: Float, run: Float, rise: Float, size: tuple[int, int]) -> NDArray[np.intp]:
    """Return the index of the last triangle over each pixel of `size` (height, width); -1 for none.

    `x` and `y` (3, n): the corners, clockwise; `run` and `rise` (3, n) lead to the next one. All triangles are
    rasterized at once, row by row: an OpenCV call for each takes longer, and longer still beside other threads,
    since each call releases the interpreter lock and has to take it again.
    """
    height, width = size
    top, bottom = (choose(choose(y[0], y[1]), y[2]) for choose in (np.minimum, np.maximum))
    index, row = _enumerate_ranges(top, bottom, height)
    at = row.astype(np.float32)
    slope = run / np.where(np.abs(rise) < _EDGE_MARGIN, np.float32(1), rise)
    start = x - slope * y
    left = right = np.zeros(0, np.float32)
    # Going clockwise, the triangle is to the left of edges that go down and to the right of those that go up.
    for down, tightest, nowhere in ((True, np.minimum, np.inf), (False, np.maximum, -np.inf)):
        bounds = rise >= _EDGE_MARGIN if down else rise <= -_EDGE_MARGIN
        starts, slopes = np.where(bounds, start, np.float32(nowhere)), np.where(bounds, slope, np.float32(0))
        first, second, third = (
            s.take(index) + g.take(index) * at for s, g in zip(starts, slopes, strict=True)
        )
        side = tightest(tightest(first, second), third)
        left, right = (left, side) if down else (side, right)
    span, column = _enumerate_ranges(left, right, width)
    owner = np.full(height * width, -1, np.intp)
    np.maximum.at(owner, (row * width).take(span) + column, index.take(span))
    return owner.reshape(height, width)


def _enumerate_ranges(low: Float, high: Float, length: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Enumerate the integers of 0…length - 1 in the ranges low (n,) to high (n,).

    Returns the index of each integer's range, and the integer.
    """
    first = np.ceil(np.maximum(low - np.float32(_EDGE_MARGIN), np.float32(0))).astype(np.intp)
    last = np.floor(np.minimum(high + np.float32(_EDGE_MARGIN), np.float32(length - 1))).astype(np.intp)
    count = np.maximum(last - first + 1, 0)
    index = np.repeat(np.arange(len(count)), count)
    return index, np.arange(len(index)) + (first - (np.cumsum(count) - count)).take(index)


def _fit_planes(values: Float, x: Float, y: Float, run: Float, rise: Float) -> Float:
    """Fit planes (channels, 5, triangles): a, b, c of value = a·x + b·y + c, and the least and largest value.

    `values` (channels, 3, triangles) at the corners, the first of them at `x` and `y`; `run` and `rise` (3,
    triangles) lead from each corner to the next.
    """
    first = values[:, 0]
    area = rise[0] * run[2] - run[0] * rise[2]
    gain1, gain2 = (values[:, 1] - first) / area, (values[:, 2] - first) / area
    planes = np.empty((len(values), 5, values.shape[2]), np.float32)
    planes[:, 0] = gain2 * -rise[0] - gain1 * rise[2]
    planes[:, 1] = gain1 * run[2] + gain2 * run[0]
    planes[:, 2] = first - planes[:, 0] * x - planes[:, 1] * y
    planes[:, 3] = np.minimum(np.minimum(first, values[:, 1]), values[:, 2])
    planes[:, 4] = np.maximum(np.maximum(first, values[:, 1]), values[:, 2])
    return planes


def sample_image(image: NDArray[Scalar], where: Float) -> NDArray[Scalar]:
    """Sample an image (H, W, …) linearly at positions float32 (h, w, 2) in its pixels; its border is replicated."""
    # OpenCV's type stubs do not allow None for the second map, and an empty one means something else.
    taken = cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(taken, image.dtype)


def polygon_mask(points: Float, region: PixelRect, soften: float = 0.0) -> Float:
    """Return the coverage 0…1, float32 (height, width), of a polygon (n, 2) in the region, edges antialiased."""
    mask = np.zeros((region.height, region.width), np.uint8)
    if region.is_empty:
        return mask.astype(np.float32)
    grid = ((points - (region.left, region.top)) * (1 << _SUBPIXEL_BITS)).round().astype(np.int32)
    cv2.fillPoly(mask, [grid], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    if soften > 0:
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), soften), np.uint8)
    return mask.astype(np.float32) / np.float32(255)


def blend(canvas: NDArray[np.uint8], region: PixelRect, layer: NDArray[np.generic], alpha: Float) -> None:
    """Blend RGB (h, w, 3), 0…255, over a region of an image, uint8 RGB, in place; `alpha` (h, w) 0…1."""
    view = region.crop(canvas)
    mixed = view + (layer.astype(np.float32) - view) * alpha[..., None]
    view[...] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
