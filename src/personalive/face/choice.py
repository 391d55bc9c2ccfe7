"""A choice among the faces of a picture: its text form, the face that it means, and the list of faces for people.

Faces are numbered from 1, from left to right by the centres of their boxes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from personalive.errors import InputError
from personalive.face.face import AnyFace, Box, FaceMesh, select_dominant_face

Choice: TypeAlias = "str | int"
"""auto, largest, left, right, a number from 1, or x,y in pixels of the upright picture."""

_Word: TypeAlias = Literal["auto", "largest", "left", "right"]
_WORDS: tuple[_Word, ...] = ("auto", "largest", "left", "right")
_NUMBER = re.compile(r"[1-9][0-9]{0,2}")
_COORDINATE = r"\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*"
_POINT = re.compile(rf"{_COORDINATE},{_COORDINATE}")
_BOX = re.compile(",".join([_COORDINATE] * 4))
_POINT_REACH = 1.0
"""How far a point may be from a face's centre, in sizes of that face."""
_MIN_BOX_SIDE = 16
_RIVAL_MIN_SIZE, _RIVAL_MAX_OFFSET = 0.8, 0.2
"""A second face rivals the first if it has at least this share of its size, unless it is farther from the middle by
this share of half the diagonal."""


@dataclass(frozen=True, slots=True)
class FaceChoice:
    """Which face is meant: by a word, by its `number` from the left, or by a `point` (x, y) in pixels."""

    word: _Word | None = "auto"
    number: int | None = None
    point: tuple[float, float] | None = None

    @property
    def is_auto(self) -> bool:
        """Whether nobody has chosen."""
        return self.word == "auto"

    def __str__(self) -> str:
        if self.point is not None:
            return f"{self.point[0]:g},{self.point[1]:g}"
        return str(self.word or self.number)

    def pick(self, faces: Sequence[AnyFace], frame_size: tuple[int, int]) -> AnyFace | None:
        """Return the face that is meant in a picture of `frame_size` (width, height); None if there is no such."""
        if not faces:
            return None
        ordered = order_faces(faces)
        if self.number is not None:
            return ordered[self.number - 1] if self.number <= len(ordered) else None
        if self.point is not None:
            return _find_at(ordered, self.point)
        if self.word == "largest":
            return max(ordered, key=lambda face: face.size)
        if self.word == "auto":
            return select_dominant_face(faces, frame_size)
        return ordered[0 if self.word == "left" else -1]


def parse_face_choice(value: Choice) -> FaceChoice:
    """Return the choice that a text or number means. Raises `InputError` for any other."""
    text = str(value).strip().casefold()
    for word in _WORDS:
        if text == word:
            return FaceChoice(word)
    if _NUMBER.fullmatch(text):
        return FaceChoice(None, number=int(text))
    if point := _POINT.fullmatch(text):
        return FaceChoice(None, point=(float(point[1]), float(point[2])))
    raise InputError(
        f"A face is chosen by left, right, largest, its number from the left (1, 2, …) or x,y in pixels, "
        f"not {str(value)[:40]!r}."
    )


def parse_face_box(value: str | Sequence[float]) -> Box:
    """Return the box that "x,y,width,height" means, in pixels: left, top, right, bottom. Raises `InputError`."""
    text = value if isinstance(value, str) else ",".join(f"{float(number):f}" for number in value)
    match = _BOX.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"A face's box is x,y,width,height in pixels, such as 120,80,200,220; not {text[:40]!r}."
        )
    x, y, width, height = map(float, match.groups())
    if min(width, height) < _MIN_BOX_SIDE:
        raise InputError(
            f"A face's box must be {_MIN_BOX_SIDE} pixels wide and high or larger, not {text[:40]}."
        )
    return x, y, x + width, y + height


def parse_reference_face(
    face: Choice, face_box: str | Sequence[float] | None
) -> tuple[FaceChoice, Box | None]:
    """Return which face of a reference is meant, or the box where it is. Raises `InputError` for both at once."""
    choice, box = parse_face_choice(face), None if face_box is None else parse_face_box(face_box)
    if box is not None and not choice.is_auto:
        raise InputError("Give either the face to choose or the box of a face, not both.")
    return choice, box


def format_face_box(box: Box) -> str:
    """Return a box, left, top, right and bottom, in the form that `parse_face_box` takes."""
    left, top, right, bottom = box
    return ",".join(f"{number:g}" for number in (left, top, right - left, bottom - top))


def check_box_inside(box: Box, frame_size: tuple[int, int]) -> None:
    """Raise `InputError` unless half of a box or more is in the picture of `frame_size` (width, height)."""
    left, top, right, bottom = box
    width, height = frame_size
    inside = max(min(right, width) - left, 0) * max(min(bottom, height) - top, 0)
    if inside < 0.5 * (right - left) * (bottom - top):
        raise InputError(
            f"The face's box {format_face_box(box)} is not in the picture of {width}×{height} pixels."
        )


def order_faces(faces: Iterable[AnyFace]) -> list[AnyFace]:
    """Return faces from left to right, and from top to bottom where they are in one column."""
    return sorted(faces, key=lambda face: face.centre)


def has_rivals(faces: Sequence[FaceMesh], frame_size: tuple[int, int]) -> bool:
    """Return whether there are several faces, and none of them stands out by its size and place."""
    first = select_dominant_face(faces, frame_size)
    second = select_dominant_face([face for face in faces if face is not first], frame_size)
    if first is None or second is None or second.size < _RIVAL_MIN_SIZE * first.size:
        return False
    offsets = [_distance_from_middle(face, frame_size) for face in (first, second)]
    return offsets[1] <= offsets[0] + _RIVAL_MAX_OFFSET


def list_faces(faces: Sequence[FaceMesh]) -> tuple[Box, ...]:
    """Return the boxes of faces in the order of their numbers."""
    return tuple(face.box for face in order_faces(faces))


def describe_faces(boxes: Sequence[Box]) -> str:
    """Return a list for people: number, place, size and centre of each box, "1: left, 212×240 px at 180,150"."""
    return "; ".join(f"{index + 1}: {_describe(boxes, index)}" for index in range(len(boxes)))


def _describe(boxes: Sequence[Box], index: int) -> str:
    left, top, right, bottom = boxes[index]
    place = "left, " if index == 0 else "right, " if index == len(boxes) - 1 else ""
    size = f"{right - left:.0f}×{bottom - top:.0f} px at {(left + right) / 2:.0f},{(top + bottom) / 2:.0f}"
    return size if len(boxes) == 1 else place + size


def _find_at(faces: Sequence[AnyFace], point: tuple[float, float]) -> AnyFace | None:
    """Return the smallest face whose box contains a point, else the nearest within reach."""
    x, y = point

    def contains(face: FaceMesh) -> bool:
        left, top, right, bottom = face.box
        return left <= x <= right and top <= y <= bottom

    if around := [face for face in faces if contains(face)]:
        return min(around, key=lambda face: face.size)
    nearest = min(faces, key=lambda face: math.dist(face.centre, point))
    return nearest if math.dist(nearest.centre, point) <= _POINT_REACH * nearest.size else None


def _distance_from_middle(face: FaceMesh, size: tuple[int, int]) -> float:
    """Return the distance from the picture's middle, as a share of half its diagonal."""
    middle = size[0] / 2, size[1] / 2
    return math.dist(face.centre, middle) / (math.hypot(*size) / 2)
