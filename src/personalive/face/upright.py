"""Which way up a picture is, by the face in it: cameras lie on their side, and not all say so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from personalive.face.face import Face, select_dominant_face
from personalive.face.pose import fit_head_pose
from personalive.face.search import SearchReach
from personalive.face.tracker import FaceDetector
from personalive.media.image import fit_image, fit_size
from personalive.media.rotation import QUARTERS, rotate_image
from personalive.media.types import Image

_MAX_TILT_DEGREES = 60.0
"""Degrees of tilt from which a face lies on its side."""
_MIN_CONFIDENCE = 0.9
"""A face that scores as much is taken for one that stands without a look at the other ways.

Landmarks that were laid over a lying face score up to 0.86, and those of the same face once it stands 0.85 to 0.97.
"""
_UNTURNED_BONUS = 0.05
"""What a picture's own way scores more, so that a head tilted by half a quarter stays."""

_OVERVIEW = (1024, 1024)
"""Width and height."""


@dataclass(frozen=True, slots=True, eq=False)
class UprightImage:
    """A picture turned clockwise by `rotation` degrees, uint8 RGB (H, W, 3), so that the largest of `faces` stands."""

    image: Image
    rotation: int
    faces: Sequence[Face]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture as turned."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def face(self) -> Face | None:
        """The face that matters, where there is one."""
        return select_dominant_face(self.faces, self.size)


def is_upright(detector: FaceDetector, image: Image, face: Face) -> bool:
    """Whether a face found in a picture neither lies on its side nor stands on its head."""
    return abs(_measure_tilt(face)) <= _MAX_TILT_DEGREES and not detector.is_upside_down(image, face)


def turn_upright(
    detector: FaceDetector, image: Image, *, reach: SearchReach = "far", faces: Sequence[Face] | None = None
) -> UprightImage | None:
    """Turn a picture so that its face stands upright; None where there is none that could.

    How far is looked for small faces says `reach`, as in `FaceDetector.detect`. Where none is seen as the picture
    is, only large ones are looked for the other ways. `faces` are those of the picture, where they are known.
    """
    found = UprightImage(image, 0, detector.detect(image, reach=reach) if faces is None else faces)
    score = _score_turn(detector, found)
    if score >= _MIN_CONFIDENCE:
        return found
    ways = [(score + _UNTURNED_BONUS, found)] if score > 0 else []
    further: SearchReach = ("near" if reach == "near" else "far") if found.faces else "near"
    overview = _overview(image)
    for turn in QUARTERS[1:]:
        if further == "near" and not detector.detect(rotate_image(overview, turn), reach="near"):
            continue
        way = rotate_image(image, turn)
        found = UprightImage(way, turn, detector.detect(way, reach=further))
        if (score := _score_turn(detector, found)) > 0:
            ways.append((score, found))
    return max(ways, key=lambda way: way[0])[1] if ways else None


def find_upright_frame(detector: FaceDetector, images: Iterable[Image]) -> UprightImage | None:
    """Return a frame of a clip, turned as the clip is to be for its face to stand; None where no face is seen.

    A few frames, taken over some time, are enough. One that stands upright settles it; others must agree.
    """
    votes: dict[int, list[UprightImage]] = {}
    first: Image | None = None
    for image in images:
        first = image if first is None else first
        found = turn_upright(detector, image, reach="near")
        if found is None:
            continue
        agreeing = votes.setdefault(found.rotation, [])
        agreeing.append(found)
        if not found.rotation or len(agreeing) == 2:
            return found
    if votes:
        return next(iter(votes.values()))[0]
    return None if first is None else turn_upright(detector, first)


def _overview(image: Image) -> Image:
    """A picture in little, where it is large: as good for finding large faces, and turned in no time."""
    size = image.shape[1], image.shape[0]
    return fit_image(image, fit_size(size, _OVERVIEW)) if max(size) > max(_OVERVIEW) else image


def _score_turn(detector: FaceDetector, way: UprightImage) -> float:
    """How sure it is, 0…1, that the picture shows a face, and how straight that stands; -1 if it does not."""
    face = way.face
    if face is None or not is_upright(detector, way.image, face):
        return -1.0
    # The landmarks of a lying face make it less tilted than it is. What is a face at all scores above 0.
    return max(detector.confidence(way.image, face), 0.01) * math.cos(math.radians(_measure_tilt(face)))


def _measure_tilt(face: Face) -> float:
    """Degrees."""
    return float(fit_head_pose(face.landmarks).angles[2])
