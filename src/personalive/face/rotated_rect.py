"""Regions of interest: rotated rectangles of a frame that a network sees.

Pixel k of a network's input is taken at k/side of the region and its outputs are read on the same scale, as
MediaPipe's ImageToTensorCalculator does on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.face.face import Float
from personalive.media.types import Image

_MARGIN = 1.5
"""Side of a region divided by that of the face in it."""
_EYE_CORNERS = (33, 263)
"""Landmarks of the outer corners: the subject's right eye and left eye."""
_MIN_SHRINK = 16
"""Ratio of input to output pixels up to which a copy with four channels pays off: OpenCV warps four channels three
times as fast as three."""
_MAX_SOURCE = 16_384
"""Largest side in pixels of what is warped: OpenCV takes no more than 32 766."""


@dataclass(frozen=True, slots=True)
class RotatedRect:
    """A rectangle `width` × `height` pixels about (`x`, `y`), turned clockwise by `angle` radians."""

    x: float
    y: float
    width: float
    height: float
    angle: float = 0.0

    @classmethod
    def covering(cls, image: Image) -> RotatedRect:
        """Return the square around a whole image, centred: it reaches over the shorter sides."""
        height, width = image.shape[:2]
        side = float(max(height, width))
        return cls(width / 2, height / 2, side, side)

    @classmethod
    def from_detection(cls, low: Float, high: Float, eyes: Float) -> RotatedRect:
        """Return the region around a detected box from `low` to `high` (x, y), turned so the eyes are level.

        `eyes` (2, 2), the subject's right eye first.
        """
        x, y = (low + high) / 2
        width, height = (high - low) * _MARGIN
        return cls(float(x), float(y), float(width), float(height), _angle_between(eyes[0], eyes[1]))

    @classmethod
    def from_landmarks(cls, landmarks: Float) -> RotatedRect:
        """Return the square region around landmarks (478, 3): the next frame should show the same face there."""
        low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
        x, y = (low + high) / 2
        side = float((high - low).max()) * _MARGIN
        right, left = _EYE_CORNERS
        return cls(float(x), float(y), side, side, _angle_between(landmarks[right], landmarks[left]))

    def frame_matrix(self) -> NDArray[np.float64]:
        """Return the matrix, float64 (2, 3), from positions in the region, 0…1 from its top left, to pixels."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        across = np.array([cosine, sine]) * self.width
        down = np.array([-sine, cosine]) * self.height
        corner = np.array([self.x, self.y]) - (across + down) / 2
        return np.column_stack([across, down, corner])

    def extract(self, image: Image, side: int, *, beyond: int) -> Image:
        """Return the region of an image, uint8 RGB (H, W, 3), at `side` × `side` pixels.

        Sampling is bilinear over four neighbouring pixels, even where the region is much larger. `beyond` is
        OpenCV's border mode.
        """
        matrix = self.frame_matrix()
        source, offset, zoom = _crop_to_needed(image, matrix)
        matrix[:, :2] /= side
        matrix[:, 2] -= offset
        if zoom != 1:
            matrix = matrix / zoom
            matrix[:, 2] += 0.5 / zoom - 0.5
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        if source.shape[0] * source.shape[1] > _MIN_SHRINK * side * side:
            return cast(Image, cv2.warpAffine(source, matrix, (side, side), flags=flags, borderMode=beyond))
        wide = cv2.cvtColor(source, cv2.COLOR_RGB2RGBA)
        taken = cv2.warpAffine(wide, matrix, (side, side), flags=flags, borderMode=beyond)
        return cast(Image, cv2.cvtColor(taken, cv2.COLOR_RGBA2RGB))

    def to_frame(self, points: Float) -> Float:
        """Convert points (n, 3) of the region, 0…1 from its top left corner, to pixels; z scales by width."""
        matrix = self.frame_matrix().astype(np.float32)
        flat = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        return np.column_stack([flat, points[:, 2] * np.float32(self.width)])


def _angle_between(start: Float, end: Float) -> float:
    return math.atan2(float(end[1] - start[1]), float(end[0] - start[0]))


def _crop_to_needed(image: Image, matrix: NDArray[np.float64]) -> tuple[Image, NDArray[np.float64], int]:
    """Return the part of an image that a region touches, its offset, and the factor by which it was shrunk."""
    height, width = image.shape[:2]
    corners = matrix[:, :2] @ np.array([[0, 1, 0, 1], [0, 0, 1, 1]]) + matrix[:, 2:]
    spans = []
    for low, high, length in zip(corners.min(1), corners.max(1), (width, height), strict=True):
        start = min(max(math.floor(low) - 2, 0), length - 1)
        spans.append((start, max(min(math.ceil(high) + 2, length), start + 1)))
    (left, right), (top, bottom) = spans
    part = image[top:bottom, left:right]
    zoom = -(-max(part.shape[:2]) // _MAX_SOURCE)
    if zoom > 1:
        size = (max(part.shape[1] // zoom, 1), max(part.shape[0] // zoom, 1))
        part = cast(Image, cv2.resize(part, size, interpolation=cv2.INTER_AREA))
    return part, np.array([left, top], np.float64), zoom
