"""Triangle meshes to sampling maps: where in the source each pixel of the result comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.face.face import Float

_SUBPIXEL_BITS = 4
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of pixels: left, top inclusive; right, bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(cls, points: Float, size: tuple[int, int], margin: float = 0.0) -> Region:
        """The pixels that points (n, 2) and `margin` more span, inside an image of `size` (width, height)."""
        low, high = points.min(0) - margin, points.max(0) + margin
        left, top = (int(np.clip(np.floor(v), 0, n)) for v, n in zip(low, size, strict=True))
        right, bottom = (int(np.clip(np.ceil(v) + 1, 0, n)) for v, n in zip(high, size, strict=True))
        return cls(left, top, max(right, left), max(bottom, top))

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def empty(self) -> bool:
        """Whether it holds no pixel."""
        return self.width < 1 or self.height < 1

    def of(self, image: NDArray[Scalar]) -> NDArray[Scalar]:
        """The view of an image (H, W, …) inside the rectangle."""
        return image[self.top : self.bottom, self.left : self.right]

    def within(self, other: Region) -> Region:
        """What two rectangles share; empty where they do not meet."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Region(left, top, max(right, left), max(bottom, top))

    def shifted(self, x: int, y: int) -> Region:
        """The rectangle moved to the right and down by whole pixels."""
        return Region(self.left + x, self.top + y, self.right + x, self.bottom + y)


def interpolate(
    target: Float, values: Float, triangles: NDArray[np.int32], region: Region
) -> tuple[Float, NDArray[np.bool_]]:
    """Spread vertex values linearly over the triangles, painted in the order given (far ones first).

    `target` float32 (n, 2) pixel positions; `values` float32 (n, channels). Returns float32
    (channels, height, width) of the region, and which of its pixels a triangle covers. A triangle whose corners
    run clockwise in the picture shows its face; those that show their back, or have no area, are left out.
    """
    corners = target[triangles]
    edge1, edge2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    facing = area > 1e-3
    triangles, corners, area = triangles[facing], corners[facing], area[facing]
    planes = _planes(values[triangles], corners, edge1[facing], edge2[facing], area)
    owner = np.full((region.height, region.width), -1, np.int32)
    if not facing.any():
        return np.zeros((values.shape[1], *owner.shape), np.float32), owner >= 0
    grid = ((corners - (region.left, region.top)) * (1 << _SUBPIXEL_BITS)).round().astype(np.int32)
    for index, triangle in enumerate(grid):
        cv2.fillConvexPoly(owner, triangle, index, cv2.LINE_8, _SUBPIXEL_BITS)
    covered = owner >= 0
    x = np.arange(region.left, region.right, dtype=np.float32)
    y = np.arange(region.top, region.bottom, dtype=np.float32)[:, None]
    spread = np.empty((values.shape[1], *owner.shape), np.float32)
    for channel, (a, b, c, low, high) in enumerate(planes):
        spread[channel] = a.take(owner, mode="clip")
        spread[channel] *= x
        spread[channel] += b.take(owner, mode="clip") * y
        spread[channel] += c.take(owner, mode="clip")
        # A triangle seen edge-on is steep, and its painted rim would reach far past its own values.
        np.clip(
            spread[channel], low.take(owner, mode="clip"), high.take(owner, mode="clip"), out=spread[channel]
        )
    return spread, covered


def _planes(values: Float, corners: Float, edge1: Float, edge2: Float, area: Float) -> list[list[Float]]:
    """Per channel, each (triangles,): a, b, c of value = a·x + b·y + c, and its least and largest value."""
    planes = []
    for channel in range(values.shape[2]):
        first = values[:, 0, channel]
        rise1, rise2 = values[:, 1, channel] - first, values[:, 2, channel] - first
        a = (rise1 * edge2[:, 1] - rise2 * edge1[:, 1]) / area
        b = (rise2 * edge1[:, 0] - rise1 * edge2[:, 0]) / area
        c = first - a * corners[:, 0, 0] - b * corners[:, 0, 1]
        low, high = values[:, :, channel].min(1), values[:, :, channel].max(1)
        planes.append([p.astype(np.float32) for p in (a, b, c, low, high)])
    return planes


def sample(image: NDArray[Scalar], where: Float) -> NDArray[Scalar]:
    """An image (H, W, …) at positions float32 (h, w, 2), in its pixels, linearly; its border goes on outside."""
    # OpenCV's types do not know that the second map may be absent, and an empty one is not the same.
    taken = cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(taken, image.dtype)


def polygon_mask(points: Float, region: Region, soften: float = 0.0) -> Float:
    """Coverage 0…1, float32 (height, width), of a polygon (n, 2) in the region, edges antialiased."""
    mask = np.zeros((region.height, region.width), np.uint8)
    if region.empty:
        return mask.astype(np.float32)
    grid = ((points - (region.left, region.top)) * (1 << _SUBPIXEL_BITS)).round().astype(np.int32)
    cv2.fillPoly(mask, [grid], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    if soften > 0:
        mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), soften), np.uint8)
    return mask.astype(np.float32) / np.float32(255)


def blend(canvas: NDArray[np.uint8], region: Region, layer: NDArray[np.generic], alpha: Float) -> None:
    """Lay RGB (h, w, 3), 0…255, over a region of an image, uint8 RGB, in place; `alpha` (h, w) 0…1."""
    view = region.of(canvas)
    mixed = view + (layer.astype(np.float32) - view) * alpha[..., None]
    view[...] = np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
