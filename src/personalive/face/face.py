"""One face in one frame: landmarks, and scores of its expression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels, right and bottom exclusive."""

BLENDSHAPES: tuple[str, ...] = (
    "_neutral",
    *("browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    *("cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight"),
    *("eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft"),
    *("eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight"),
    *("eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose"),
    *("mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel"),
    *("mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight"),
    *("mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower"),
    *("mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight"),
)
"""ARKit's names in the order the network gives them. Left and right are the subject's own."""

BLENDSHAPE_INDEX = {name: index for index, name in enumerate(BLENDSHAPES)}

LANDMARK_COUNT = 478
"""468 of the face mesh, then two irises of centre and four rim points each (subject's right eye first)."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceMesh:
    """The landmarks of one face.

    `landmarks` float32 (478, 3): x right and y down in pixels of the frame, z in the same unit, smaller is nearer.
    """

    landmarks: Float

    @property
    def box(self) -> Box:
        """The landmarks' bounding box: chin to hairline, without ears and hair."""
        low, high = self.landmarks[:, :2].min(0), self.landmarks[:, :2].max(0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the box, (x, y) pixels."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def size(self) -> float:
        """Geometric mean of the box's sides, pixels: steady under turning and nodding."""
        left, top, right, bottom = self.box
        return float(np.sqrt(max(right - left, 1e-3) * max(bottom - top, 1e-3)))

    def scale(self, factor: float, offset: tuple[float, float] = (0.0, 0.0)) -> Self:
        """Return the same face in a frame resized by `factor` and then shifted by `offset` (x, y) pixels."""
        shift = np.array([*offset, 0.0], np.float32)
        return replace(self, landmarks=self.landmarks * np.float32(factor) + shift)


@dataclass(frozen=True, slots=True, eq=False)
class Face(FaceMesh):
    """A face with its expression: `blendshapes` float32 (52,) 0…1 in the order of `BLENDSHAPES`."""

    blendshapes: Float

    def score(self, *names: str) -> float:
        """Return the mean of the named blendshapes, 0…1."""
        return float(np.mean([self.blendshapes[BLENDSHAPE_INDEX[name]] for name in names]))


AnyFace = TypeVar("AnyFace", bound=FaceMesh)


class FacePlace(Protocol):
    """Where a face is: its centre and size in pixels."""

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the face's box."""

    @property
    def size(self) -> float:
        """Geometric mean of the box's sides."""


def select_dominant_face(
    faces: Sequence[AnyFace], frame_size: tuple[int, int], previous: FacePlace | None = None
) -> AnyFace | None:
    """Return the dominant face of several: the one followed before, else a large and central one.

    `frame_size` (width, height). A followed face is kept while one is found within half its size of where it
    was, so that a passer-by does not take over.
    """
    if not faces:
        return None
    if previous is not None:
        nearest = min(faces, key=lambda face: _distance(face, previous.centre))
        if is_same_face(nearest, previous):
            return nearest
    width, height = frame_size
    middle, reach = (width / 2, height / 2), max(np.hypot(width, height) / 2, 1.0)
    return max(faces, key=lambda face: face.size * (1.0 - 0.5 * _distance(face, middle) / reach))


def is_same_face(face: FaceMesh, previous: FacePlace) -> bool:
    """Return whether a face is where another was a frame ago: within half its size."""
    return _distance(face, previous.centre) < 0.5 * previous.size


def _distance(face: FaceMesh, point: tuple[float, float]) -> float:
    x, y = face.centre
    return float(np.hypot(x - point[0], y - point[1]))
