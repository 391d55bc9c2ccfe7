"""Crops of a frame: they place a head well in the picture, and are extracted at any size.

A crop may reach over the frame's edge. The part outside is filled when the crop is extracted: the edge pixels
are continued, and blurred more the farther they are from the frame, so that no streaks draw the eye.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.face.face import FaceMesh
from personalive.face.one_euro import OneEuroFilter
from personalive.face.pose import fit_head_pose
from personalive.media.types import Image

ImageSize = tuple[int, int]
"""(width, height) in pixels."""

HEAD_HEIGHT = 17.7
"""Chin to hairline of the canonical face in cm: a height that does not depend on the expression."""
_HEAD_CENTRE = (0.0, -0.6, 2.0)
"""Half-way between chin and hairline, inside the head: it moves little while the head turns (cm)."""

FACE_SHARE = 0.42
"""Height of the face as a share of the crop's height, which then shows head and shoulders."""
FACE_CENTRE = 0.46
"""The face's centre as a share of the crop's height from its top: hair needs less room than shoulders."""
_MAX_HEAD_SHARE = 0.7
_MIN_WIDTH_IN_HEADS, _MIN_HEIGHT_IN_HEADS = 1.5, 1.1
"""Least width of the crop in face heights, so that an upright crop does not cut off the ears. The second value
is used where the image is too narrow for the first."""
_MAX_SHIFT = 0.15


@dataclass(frozen=True, slots=True)
class CropBox:
    """A rectangle in pixels of a frame. It may be fractional and may reach over the frame's edges."""

    left: float
    top: float
    width: float
    height: float

    def __post_init__(self) -> None:
        if not (self.width > 0 and self.height > 0 and math.isfinite(self.left + self.top)):
            raise ValueError(f"not a rectangle: {self.left}, {self.top}, {self.width} × {self.height}")

    @property
    def right(self) -> float:
        """Right edge, exclusive."""
        return self.left + self.width

    @property
    def bottom(self) -> float:
        """Bottom edge, exclusive."""
        return self.top + self.height

    def is_inside(self, size: ImageSize) -> bool:
        """Return whether the box lies within a frame of `size` (width, height)."""
        return self.left >= 0 and self.top >= 0 and self.right <= size[0] and self.bottom <= size[1]

    @staticmethod
    def largest(size: ImageSize, aspect: float = 1.0) -> CropBox:
        """Return the largest centred box of `aspect` (width / height) within a frame of `size`."""
        width = min(float(size[0]), size[1] * aspect)
        height = width / aspect
        return CropBox((size[0] - width) / 2, (size[1] - height) / 2, width, height)


def measure_head(face: FaceMesh) -> tuple[float, float, float]:
    """Return the centre (x, y) and height of a head in pixels, steady while the face turns, speaks or laughs."""
    pose = fit_head_pose(face.landmarks)
    x, y, _ = pose.to_frame(np.array([_HEAD_CENTRE]))[0]
    return float(x), float(y), float(pose.scale * HEAD_HEIGHT)


def _crop_height(head: float, aspect: float) -> float:
    """Return the height of a head's crop; a narrow crop is made higher until the ears are in it."""
    return head * max(1 / FACE_SHARE, _MIN_WIDTH_IN_HEADS / aspect)


def _place_head(x: float, y: float, height: float, aspect: float) -> CropBox:
    return CropBox(x - height * aspect / 2, y - FACE_CENTRE * height, height * aspect, height)


def compute_reference_crop(face: FaceMesh, image_size: ImageSize, aspect: float = 1.0) -> CropBox:
    """Return the crop of a portrait that shows head and shoulders, of `aspect` (width / height).

    It stays within the image of `image_size` (width, height) as far as the framing allows: it is made smaller,
    at most until the face fills 70 % of its height, and moved by up to 15 % of its sides. `extract_crop` fills
    any part that still lies outside.
    """
    x, y, head = measure_head(face)
    smallest = head * max(1 / _MAX_HEAD_SHARE, _MIN_HEIGHT_IN_HEADS / aspect)
    fitting = min(image_size[1], image_size[0] / aspect)
    box = _place_head(x, y, min(_crop_height(head, aspect), max(fitting, smallest)), aspect)
    left = _clamp_start(box.left, box.width, image_size[0])
    top = _clamp_start(box.top, box.height, image_size[1])
    return CropBox(left, top, box.width, box.height)


def _clamp_start(start: float, length: float, limit: int) -> float:
    """Return `start` moved so that the span lies in 0…limit, or as close to that as possible."""
    low, high = sorted((0.0, limit - length))
    reach = _MAX_SHIFT * length
    return start + min(max(min(max(start, low), high) - start, -reach), reach)


def extract_crop(image: Image, box: CropBox, size: ImageSize) -> Image:
    """Return the crop `box` of `image`, uint8 RGB (H, W, 3), resampled to `size` (width, height).

    Areas are averaged when shrinking and cubic splines used when growing; the box's fractions of a pixel are
    kept, so a slowly moving crop moves smoothly. Outside the image its edge is continued and blurred.
    """
    height, width = image.shape[:2]
    if (box.left, box.top, box.width, box.height) == (0, 0, width, height) == (0, 0, *size):
        return image.copy()
    source, offset = _crop_to_needed(image, box)
    coarser = math.floor(min(box.width / size[0], box.height / size[1]) / 2)
    taken = (source.shape[1], source.shape[0])
    if coarser > 1:
        reduced = (max(round(taken[0] / coarser), 1), max(round(taken[1] / coarser), 1))
        source = cast(Image, cv2.resize(source, reduced, interpolation=cv2.INTER_AREA))
    zoom = (source.shape[1] / taken[0], source.shape[0] / taken[1])
    # Enlarging to a whole multiple of the size and averaging whole blocks is exact area averaging, also for
    # boxes that do not begin or end on a pixel.
    columns = max(math.ceil(zoom[0] * box.width / size[0]), 1)
    rows = max(math.ceil(zoom[1] * box.height / size[1]), 1)
    fine = (size[0] * columns, size[1] * rows)
    step = (zoom[0] * box.width / fine[0], zoom[1] * box.height / fine[1])
    mapping = np.array(
        [
            [step[0], 0, zoom[0] * (box.left - offset[0]) + step[0] / 2 - 0.5],
            [0, step[1], zoom[1] * (box.top - offset[1]) + step[1] / 2 - 0.5],
        ]
    )
    smooth = cv2.INTER_CUBIC if columns == rows == 1 else cv2.INTER_LINEAR
    pixels = cv2.warpAffine(
        source, mapping, fine, flags=smooth | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    if fine != size:
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    result = cast(Image, pixels)
    return result if box.is_inside((width, height)) else _soften_outside(result, box, (width, height))


def _crop_to_needed(image: Image, box: CropBox) -> tuple[Image, tuple[int, int]]:
    """Return the part of the image that the box touches, and its offset.

    OpenCV warps no more than 32 766 pixels a side.
    """
    height, width = image.shape[:2]
    left = min(max(math.floor(box.left) - 2, 0), width - 1)
    top = min(max(math.floor(box.top) - 2, 0), height - 1)
    right = max(min(math.ceil(box.right) + 2, width), left + 1)
    bottom = max(min(math.ceil(box.bottom) + 2, height), top + 1)
    return image[top:bottom, left:right], (left, top)


def _soften_outside(pixels: Image, box: CropBox, image_size: ImageSize) -> Image:
    height, width = pixels.shape[:2]
    kept, blurred_share, rows = _outside_weights(box, image_size, (width, height))
    if rows is None:
        return pixels
    # Blurring at a quarter of the size is as good and much quicker.
    small = cv2.resize(pixels, (max(width // 4, 1), max(height // 4, 1)), interpolation=cv2.INTER_AREA)
    deviation = 0.05 * max(width, height) / 4
    small = cv2.GaussianBlur(small, (0, 0), deviation, borderType=cv2.BORDER_REPLICATE)
    blurred = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    pixels[rows] = cv2.blendLinear(pixels[rows], blurred[rows], kept, blurred_share)
    return pixels


@lru_cache(maxsize=8)
def _outside_weights(
    box: CropBox, image_size: ImageSize, size: ImageSize
) -> tuple[NDArray[np.float32], NDArray[np.float32], slice | None]:
    """Return the weights of the sharp and of the blurred pixels, float32 (rows, width), and the rows they are for.

    The rows are those with a pixel outside the image, None without one. The weights are cached, since a calm
    crop stays where it is.
    """
    width, height = size
    x = box.left + (np.arange(width) + 0.5) * (box.width / width)
    y = box.top + (np.arange(height) + 0.5) * (box.height / height)
    across = np.maximum(np.maximum(-x, x - image_size[0]), 0) * (width / box.width)
    down = np.maximum(np.maximum(-y, y - image_size[1]), 0) * (height / box.height)
    outside = np.arange(height) if across.any() else np.flatnonzero(down)
    if not len(outside):
        return np.empty((0, width), np.float32), np.empty((0, width), np.float32), None
    rows = slice(int(outside[0]), int(outside[-1]) + 1)
    distance = np.hypot(across[None, :], down[rows, None]) / (0.06 * max(width, height))
    share = np.minimum(distance, 1.0).astype(np.float32)
    return 1 - share, share, rows


class FollowCrop:
    """A crop that follows a driving face smoothly.

    While the head stays within a small tolerance of the crop's target, the crop does not move: neither the
    landmarks' noise nor talking shifts it. When the head strays farther, the crop follows and eases in and
    out. The crop's aspect never changes; while no face is found the crop stays where it is.
    """

    def __init__(self, aspect: float = 1.0, *, tolerance: float = 0.06) -> None:
        """Create a crop of `aspect` (width / height); `tolerance` is how far a head may stray, in head heights."""
        self._aspect = aspect
        self._tolerance = tolerance
        self._filter = OneEuroFilter(min_cutoff=0.8, beta=1.5, gap=1.0)
        self._image_size: ImageSize = (0, 0)
        self._head_unit = 0.0
        self._target: NDArray[np.float64] | None = None

    def update(self, face: FaceMesh | None, image_size: ImageSize, time: float) -> CropBox:
        """Return the crop for the next frame of `image_size` (width, height) at `time` in seconds.

        Before the first face it is the largest centred crop. A new image size resets the tracking.
        """
        if image_size != self._image_size:
            self.reset()
            self._image_size = image_size
        if face is not None:
            x, y, head = measure_head(face)
            # Positions are in heads and the size is a logarithm, so one filter setting fits near and far faces.
            self._head_unit = self._head_unit or head
            self._update_target(
                np.array([x / self._head_unit, y / self._head_unit, math.log(head / self._head_unit)])
            )
        if self._target is None:
            return CropBox.largest(image_size, self._aspect)
        x, y, size = self._filter.filter(self._target, time)
        head = self._head_unit * math.exp(size)
        x, y = x * self._head_unit, y * self._head_unit
        return _place_head(x, y, _crop_height(head, self._aspect), self._aspect)

    def _update_target(self, seen: NDArray[np.float64]) -> None:
        """Move the target just far enough to bring the head within the tolerance, if it is not within."""
        if self._target is None:
            self._target = seen
            return
        leash = self._tolerance * math.exp(self._target[2])
        away = seen - self._target
        strayed = max(math.hypot(away[0], away[1]) / leash, 1.0)
        grown = max(abs(away[2]) / self._tolerance, 1.0)
        self._target = self._target + away * (1 - 1 / np.array([strayed, strayed, grown]))

    def reset(self) -> None:
        """Forget the face: the next one is framed at once."""
        self._target, self._head_unit = None, 0.0
        self._filter.reset()

    def state(self) -> dict[str, Any]:
        """Return all that `restore` needs, as JSON."""
        target = None if self._target is None else self._target.tolist()
        return {
            "size": self._image_size,
            "unit": self._head_unit,
            "target": target,
            "ease": self._filter.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue as the crop whose `state` this is. Raises `KeyError` or `ValueError` for anything else."""
        width, height = state["size"]
        self._image_size, self._head_unit = (int(width), int(height)), float(state["unit"])
        self._target = None if state["target"] is None else np.array(state["target"], np.float64)
        self._filter.restore(state["ease"])
