"""Small faces in large pictures: looked for in overlapping windows of several sizes.

The detector sees 128 × 128 pixels and was trained on selfies: it misses a face narrower than about a tenth of what
it is shown. So windows are cut from copies of the picture in which a window is just as large as that, and what is
found there is looked at closely in the picture itself. However large that is, the windows are equally many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias, cast

import cv2

from personalive.face.box_detector import SIDE
from personalive.face.face import FaceMesh
from personalive.face.landmarker import FaceLandmarker
from personalive.media.types import Image

SearchReach: TypeAlias = Literal["near", "far", "very far"]
"""How small the faces are that are searched for."""

_FAR = (0.6, 0.35, 0.2)
_VERY_FAR = (0.11, 0.062)
"""Windows' sides over the frame's: for video, and further for stills, where a second more is well spent."""
_SHARES: dict[SearchReach, tuple[float, ...]] = {"near": (), "far": _FAR, "very far": (*_FAR, *_VERY_FAR)}
_STRIDE = 5 * SIDE // 8
"""From one window to the next. A face too large to be whole in one of them is large enough for those before."""
_SMALLEST = 64
"""Pixels: what is enlarged more than to twice its size shows no more than before."""


def search(landmarker: FaceLandmarker, image: Image, reach: SearchReach) -> list[FaceMesh]:
    """Faces of the first window that holds any, in an image, uint8 RGB (H, W, 3), that shows none as a whole.

    Larger faces are found first. `reach` says how small the windows become.
    """
    height, width = image.shape[:2]
    sides = _sides(max(width, height), _SHARES[reach])
    source = _copy(image, (width, height), sides[-1]) if sides and sides[-1] > SIDE else image
    for side in sides:
        copy = _copy(source, (width, height), side)
        across, down = width / copy.shape[1], height / copy.shape[0]
        for left, top in _corners(copy):
            boxes = landmarker.box_detector.detect(copy[top : top + SIDE, left : left + SIDE])
            placed = [box.placed((left, top), (across, down)) for box in boxes]
            if faces := landmarker.look_at(image, placed):
                return faces
    return []


def _sides(longest: int, shares: Sequence[float]) -> list[int]:
    """The windows' sides in pixels of the picture, falling: those that show less of it than one before does."""
    sides = (max(int(longest * share), _SMALLEST) for share in shares)
    return [side for side in dict.fromkeys(sides) if side < longest]


def _copy(image: Image, size: tuple[int, int], side: int) -> Image:
    """A picture of the original `size` (width, height), scaled so that `side` pixels of that become `SIDE`."""
    width, height = (max(round(length * SIDE / side), 1) for length in size)
    shrinks = width <= image.shape[1] and height <= image.shape[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cast(Image, cv2.resize(image, (width, height), interpolation=how))


def _corners(copy: Image) -> Iterator[tuple[int, int]]:
    """Left and top of windows that overlap, row by row."""
    columns = _starts(copy.shape[1])
    for top in _starts(copy.shape[0]):
        for left in columns:
            yield left, top


def _starts(length: int) -> list[int]:
    if length <= SIDE:
        return [0]
    count = -(-(length - SIDE) // _STRIDE) + 1
    return [round(k * (length - SIDE) / (count - 1)) for k in range(count)]
