"""Which way up a picture is, by the face in it: cameras lie on their side, and not all say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from personalive.face.face import Face, dominant
from personalive.face.pose import fit_head
from personalive.face.tracker import FaceDetector, Reach
from personalive.media.rotation import QUARTERS, turned
from personalive.media.types import Image

_LYING = 60.0
"""Degrees of tilt from which a face lies on its side."""
_SURE = 0.5
"""From that confidence on a face that stands upright is taken for one without a look at the other ways."""


@dataclass(frozen=True, slots=True, eq=False)
class Upright:
    """A picture turned clockwise by `turn` degrees, uint8 RGB (H, W, 3), so that the largest of `faces` stands."""

    image: Image
    turn: int
    faces: Sequence[Face]


def stands(detector: FaceDetector, image: Image, face: Face) -> bool:
    """Whether a face found in a picture neither lies on its side nor stands on its head."""
    tilt = abs(float(fit_head(face.landmarks).angles[2]))
    return tilt <= _LYING and not detector.upside_down(image, face)


def upright(detector: FaceDetector, image: Image, *, reach: Reach = "far") -> Upright | None:
    """Turn a picture so that its face stands upright; None where there is none that could.

    How far is looked for small faces says `reach`, as in `FaceDetector.detect`. Where none is seen as the picture
    is, only large ones are looked for the other ways.
    """
    found = Upright(image, 0, detector.detect(image, reach=reach))
    confidence = _confidence(detector, found)
    if confidence >= _SURE:
        return found
    ways = [(confidence, found)]
    further: Reach = ("near" if reach == "near" else "far") if found.faces else "near"
    for turn in QUARTERS[1:]:
        way = turned(image, turn)
        found = Upright(way, turn, detector.detect(way, reach=further))
        ways.append((_confidence(detector, found), found))
    best, found = max(ways, key=lambda way: way[0])
    return found if best >= 0 else None


def usual_turn(detector: FaceDetector, images: Iterable[Image]) -> int | None:
    """Return by how many degrees clockwise the frames of a clip are to be turned; None where no face is seen.

    A few frames, taken over some time, are enough. One that stands upright settles it; others must agree.
    """
    votes: Counter[int] = Counter()
    first: Image | None = None
    for image in images:
        first = image if first is None else first
        found = upright(detector, image, reach="near")
        if found is None:
            continue
        votes[found.turn] += 1
        if not found.turn or votes[found.turn] == 2:
            return found.turn
    if not votes and first is not None and (found := upright(detector, first)) is not None:
        return found.turn
    return votes.most_common(1)[0][0] if votes else None


def _confidence(detector: FaceDetector, way: Upright) -> float:
    """How sure it is that the picture shows a face upright; below 0 that it does not."""
    face = dominant(way.faces, (way.image.shape[1], way.image.shape[0]))
    if face is None or not stands(detector, way.image, face):
        return -1.0
    return detector.confidence(way.image, face)
