"""Which way up a picture is, by the face in it: some cameras are mounted on their side and do not say so."""

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
"""A face with this score counts as upright without trying the other rotations.

Landmarks fitted to a lying face score up to 0.86, those of the same face turned upright 0.85 to 0.97.
"""
_UNTURNED_BONUS = 0.05
"""Added to the score of the unturned picture, so that one with a head tilted by about 45° is not turned."""

_OVERVIEW = (1024, 1024)
"""Largest width and height of the reduced picture."""


@dataclass(frozen=True, slots=True, eq=False)
class UprightImage:
    """A picture, uint8 RGB (H, W, 3), turned clockwise by `rotation` degrees: its largest face is upright."""

    image: Image
    rotation: int
    faces: Sequence[Face]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the turned picture."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def face(self) -> Face | None:
        """The dominant face, or None."""
        return select_dominant_face(self.faces, self.size)


def is_upright(detector: FaceDetector, image: Image, face: Face) -> bool:
    """Return whether a face found in a picture neither lies on its side nor is upside down."""
    return abs(_measure_tilt(face)) <= _MAX_TILT_DEGREES and not detector.is_upside_down(image, face)


def turn_upright(
    detector: FaceDetector, image: Image, *, reach: SearchReach = "far", faces: Sequence[Face] | None = None
) -> UprightImage | None:
    """Turn a picture so that its face is upright; return None where no face is found.

    `reach` says how small the faces are that are searched for, as in `FaceDetector.detect`. Where none is found in
    the picture as it is, only large ones are searched for in the other rotations. `faces` are those of the picture,
    where they are known.
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
    """Return a frame of a clip, turned so that its face is upright; None where no face is found.

    A few frames, taken over some time, are enough. One upright frame decides at once; turned ones must agree.
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
    """Reduce a large picture: it serves as well for finding large faces, and is turned quickly."""
    size = image.shape[1], image.shape[0]
    return fit_image(image, fit_size(size, _OVERVIEW)) if max(size) > max(_OVERVIEW) else image


def _score_turn(detector: FaceDetector, way: UprightImage) -> float:
    """Return how certainly, 0…1, the picture shows an upright face; -1 if it shows none."""
    face = way.face
    if face is None or not is_upright(detector, way.image, face):
        return -1.0
    # The landmarks of a lying face show less tilt than it has. Any face scores above 0.
    return max(detector.confidence(way.image, face), 0.01) * math.cos(math.radians(_measure_tilt(face)))


def _measure_tilt(face: Face) -> float:
    """Return a face's tilt in degrees."""
    return float(fit_head_pose(face.landmarks).angles[2])
