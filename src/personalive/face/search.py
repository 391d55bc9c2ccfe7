"""Search for small faces in large pictures, in overlapping windows of several sizes.

The detector sees 128 × 128 pixels and was trained on selfies: it misses a face narrower than about a tenth of its
input. So windows of exactly that size are cut from scaled copies of the picture, and landmarks of the faces found
there are taken from the picture itself. The number of windows does not depend on the size of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias, cast

import cv2

from personalive.face.box_detector import SIDE
from personalive.face.face import FaceMesh, is_same_face
from personalive.face.landmarker import FaceLandmarker
from personalive.media.types import Image

SearchReach: TypeAlias = Literal["near", "far", "very far"]
"""How small the faces are that are searched for."""

_FAR = (0.6, 0.35, 0.2)
_VERY_FAR = (0.11, 0.062)
"""Sides of the windows divided by the frame's: for video, and further ones for stills, where a second more is
acceptable."""
_SHARES: dict[SearchReach, tuple[float, ...]] = {"near": (), "far": _FAR, "very far": (*_FAR, *_VERY_FAR)}
_STRIDE = 5 * SIDE // 8
"""Pixels from one window to the next. A face too large for the overlap is found in the larger windows before."""
_SMALLEST = 64
"""Smallest window side in pixels: enlarging a window to more than twice its size shows nothing new."""


def search(
    landmarker: FaceLandmarker, image: Image, reach: SearchReach, *, every: bool = False
) -> list[FaceMesh]:
    """Return the faces of the first window that holds any, in an image, uint8 RGB (H, W, 3).

    For images in which detection on the whole found none. Larger faces are found first. `reach` says how small the
    windows become. With `every`, the faces of all windows of that size are returned.
    """
    height, width = image.shape[:2]
    sides = _sides(max(width, height), _SHARES[reach])
    source = _copy(image, (width, height), sides[-1]) if sides and sides[-1] > SIDE else image
    for side in sides:
        copy = _copy(source, (width, height), side)
        across, down = width / copy.shape[1], height / copy.shape[0]
        found: list[FaceMesh] = []
        for left, top in _corners(copy):
            boxes = landmarker.box_detector.detect(copy[top : top + SIDE, left : left + SIDE])
            placed = [box.placed((left, top), (across, down)) for box in boxes]
            for face in landmarker.look_at(image, placed):
                if not any(is_same_face(face, other) for other in found):
                    found.append(face)
            if found and not every:
                break
        if found:
            return found
    return []


def find_more(landmarker: FaceLandmarker, image: Image, known: Sequence[FaceMesh]) -> list[FaceMesh]:
    """Return known faces and those that the detector misses beside them: in the largest windows it sees more."""
    found = list(known)
    side = int(max(image.shape[:2]) * _FAR[0])
    if side < 2 * _SMALLEST:
        return found
    copy = _copy(image, (image.shape[1], image.shape[0]), side)
    across, down = image.shape[1] / copy.shape[1], image.shape[0] / copy.shape[0]
    for left, top in _corners(copy):
        boxes = landmarker.box_detector.detect(copy[top : top + SIDE, left : left + SIDE])
        for face in landmarker.look_at(image, [box.placed((left, top), (across, down)) for box in boxes]):
            if not any(is_same_face(face, other) or is_same_face(other, face) for other in found):
                found.append(face)
    return found


def _sides(longest: int, shares: Sequence[float]) -> list[int]:
    """Return the windows' sides in pixels of the picture, decreasing and without repeats."""
    sides = (max(int(longest * share), _SMALLEST) for share in shares)
    return [side for side in dict.fromkeys(sides) if side < longest]


def _copy(image: Image, size: tuple[int, int], side: int) -> Image:
    """Scale a picture of the original `size` (width, height): `side` of the original's pixels become `SIDE`."""
    width, height = (max(round(length * SIDE / side), 1) for length in size)
    shrinks = width <= image.shape[1] and height <= image.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cast(Image, cv2.resize(image, (width, height), interpolation=how))


def _corners(copy: Image) -> Iterator[tuple[int, int]]:
    """Yield left and top of overlapping windows, row by row."""
    columns = _starts(copy.shape[1])
    for top in _starts(copy.shape[0]):
        for left in columns:
            yield left, top


def _starts(length: int) -> list[int]:
    if length <= SIDE:
        return [0]
    count = -(-(length - SIDE) // _STRIDE) + 1
    return [round(k * (length - SIDE) / (count - 1)) for k in range(count)]
