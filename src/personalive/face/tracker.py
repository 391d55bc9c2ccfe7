"""The face to follow in each frame of a video, near or far, and the faces of a still."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from personalive.closing import Closing
from personalive.face.blendshapes import BlendshapeScorer
from personalive.face.choice import FaceChoice
from personalive.face.face import Box, Face, FaceMesh, is_same_face, select_dominant_face
from personalive.face.landmark_filter import LandmarkFilter
from personalive.face.landmarker import FaceLandmarker
from personalive.face.placement import find_face_in_box
from personalive.face.rotated_rect import RotatedRect
from personalive.face.search import SearchReach, find_more, search
from personalive.media.types import Image

Window = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of the frame; right and bottom are exclusive."""

_MAX_MISSED_FRAMES = 90
"""Frames without a face after which the next face may be another person's."""
_MAX_FACES = 16
"""Most faces of a picture: a group whose members may be chosen."""
_RETURN_REACH = 1.0
"""How far from its last place a chosen face is recognized when it was lost, in sizes of it."""
_SEARCH_EVERY = 10
"""Frames between two searches for a far face while none is seen: a search costs several detections."""


class FaceDetector(Closing):
    """A detector of faces in stills. Not thread-safe."""

    def __init__(self) -> None:
        self._landmarker = FaceLandmarker(max_faces=_MAX_FACES)
        self._scorer = BlendshapeScorer()

    def detect(self, image: Image, *, reach: SearchReach = "very far") -> list[Face]:
        """Return the faces of a still, uint8 RGB (H, W, 3), largest first.

        Beside a face, others down to about 6 % of the picture are found. Where there is none, smaller ones are
        searched for, as far as `reach` says: faces narrower than
        a tenth of the picture are found from "far" on, which takes a third of a second where there is no face; the
        smallest, down to 1 % of the longer side, by "very far", which takes several times as long.
        """
        meshes = self._landmarker.detect(image)
        if not meshes:
            meshes = search(self._landmarker, image, reach, every=True)
        elif reach != "near":
            meshes = find_more(self._landmarker, image, meshes)
        return [self._scorer.score(mesh) for mesh in sorted(meshes, key=lambda mesh: -mesh.size)]

    def detect_dominant(self, image: Image) -> Face | None:
        """Return the dominant face of a still, or None."""
        return select_dominant_face(self.detect(image), (image.shape[1], image.shape[0]))

    def find_in_box(self, image: Image, box: Box) -> tuple[Face, bool]:
        """Return the face in a box of a still, and whether one was found: see `find_face_in_box`."""
        return find_face_in_box(self._landmarker, self._scorer, image, box)

    def confidence(self, image: Image, face: FaceMesh) -> float:
        """Return the detector's score, 0…1, of a face that was found in this still."""
        left, top, right, bottom = _window_around(face, (image.shape[1], image.shape[0]))
        return self._landmarker.box_detector.highest_score(image[top:bottom, left:right])

    def is_upside_down(self, image: Image, face: FaceMesh) -> bool:
        """Return whether a face of this still is upside down: the detector scores the turned region higher."""
        left, top, right, bottom = _window_around(face, (image.shape[1], image.shape[0]))
        around = image[top:bottom, left:right]
        likeness = self._landmarker.box_detector.highest_score
        return likeness(around[::-1, ::-1]) > likeness(around) + 0.15

    def close(self) -> None:
        """Release the networks. May be called twice."""
        self._landmarker.close()
        self._scorer.close()


@dataclass(frozen=True, slots=True)
class _LastPlace:
    """Where the followed face was, and how many faces there were when it was chosen."""

    centre: tuple[float, float]
    size: float
    face_count: int

    def distance(self, face: FaceMesh) -> float:
        """Return how far a face is from there, in sizes of the followed one."""
        return math.dist(face.centre, self.centre) / max(self.size, 1e-3)


class FaceTracker(Closing):
    """A tracker of one face of a video, by default the dominant one. Not thread-safe.

    The face to follow is chosen among all visible faces when the tracking starts and after it was lost; from then
    on the landmark network sees only the region where that face was, and the detector does not run. The landmarks
    of a followed face are smoothed. A new frame size resets the tracking.

    With a `choice`, tracking starts in the first frame that has such a face. When the face was lost, it is found
    again near its last place, or by the choice where as many faces are visible as when it was chosen; another one
    is followed only after it has been away for long.
    """

    def __init__(self, choice: FaceChoice | None = None) -> None:
        self.choice = choice or FaceChoice()
        """May be replaced at any time: then the next frame begins a new tracking."""
        self._tracked_choice = self.choice
        self._landmarker = FaceLandmarker(max_faces=_MAX_FACES)
        self._scorer: BlendshapeScorer | None = None
        self._filter = LandmarkFilter()
        self._region: RotatedRect | None = None
        self._size = (0, 0)
        self._previous: _LastPlace | None = None
        self._face_count = 0
        self._missed = 0

    def track(self, image: Image) -> Face | None:
        """Return the dominant face of the next frame, uint8 RGB (H, W, 3), or None if there is none."""
        mesh = self.track_mesh(image)
        if mesh is None:
            return None
        if self._scorer is None:
            self._scorer = BlendshapeScorer()
        return self._scorer.score(mesh)

    def track_mesh(self, image: Image) -> FaceMesh | None:
        """Return what `track` does, without the scores, for callers that need only the landmarks."""
        size = (image.shape[1], image.shape[0])
        choice = self.choice
        if size != self._size or choice != self._tracked_choice:
            self.reset()
            self._size, self._tracked_choice = size, choice
        mesh = self._follow(image)
        if mesh is None:
            self._filter.reset()
            mesh = self._find(image)
        self._missed = 0 if mesh is not None else self._missed + 1
        if mesh is None:
            self._region = None
            if self._missed >= _MAX_MISSED_FRAMES:
                self._previous = None
            return None
        self._region = RotatedRect.from_landmarks(mesh.landmarks)
        self._previous = _LastPlace(mesh.centre, mesh.size, self._face_count)
        return self._filter.filter(mesh)

    def _follow(self, image: Image) -> FaceMesh | None:
        """Return the face followed so far, or None if it is not in its region any more."""
        if self._region is None or self._previous is None:
            return None
        mesh = self._landmarker.detect_in_region(image, self._region)
        return mesh if mesh is not None and is_same_face(mesh, self._previous) else None

    def _find(self, image: Image) -> FaceMesh | None:
        """Choose a face to follow.

        A face too small for detection on the whole frame is searched for only every few frames: a search costs
        several detections.
        """
        meshes = self._landmarker.detect(image)
        if not meshes and self._missed % _SEARCH_EVERY == 0:
            meshes = search(self._landmarker, image, "far", every=not self._tracked_choice.is_auto)
        elif meshes and not self._tracked_choice.is_auto:
            meshes = find_more(self._landmarker, image, meshes)
        if self._tracked_choice.is_auto:
            return select_dominant_face(meshes, self._size, self._previous)
        return self._find_chosen(meshes)

    def _find_chosen(self, meshes: Sequence[FaceMesh]) -> FaceMesh | None:
        """Return the chosen face: where it was last, else by the choice, unless it may be hidden."""
        last = self._previous
        if last is not None and meshes:
            nearest = min(meshes, key=last.distance)
            if last.distance(nearest) < _RETURN_REACH:
                return nearest
            if len(meshes) < last.face_count:
                return None
        chosen = self._tracked_choice.pick(meshes, self._size)
        if chosen is not None:
            self._face_count = len(meshes)
        return chosen

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON: where a chosen face was; nothing while none is chosen."""
        last = self._previous
        if last is None or self._tracked_choice.is_auto:
            return {}
        return {
            "centre": list(last.centre),
            "size": last.size,
            "faces": last.face_count,
            "missed": self._missed,
            "frame": list(self._size),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Detect the face in the next frame, where `state` says that it was."""
        self.reset()
        if state:
            x, y = map(float, state["centre"])
            self._face_count, self._missed = int(state["faces"]), int(state["missed"])
            self._previous = _LastPlace((x, y), float(state["size"]), self._face_count)
            width, height = map(int, state["frame"])
            self._size, self._tracked_choice = (width, height), self.choice

    def reset(self) -> None:
        """Forget the face followed so far."""
        self._region, self._previous, self._missed = None, None, 0
        self._filter.reset()

    def close(self) -> None:
        """Release the networks. May be called twice."""
        self._landmarker.close()
        if self._scorer is not None:
            self._scorer.close()


def _window_around(face: FaceMesh, frame_size: tuple[int, int]) -> Window:
    """Return a window of four face sizes around a face, inside the frame."""
    side = int(4 * face.size)
    spans = []
    for centre, length in zip(face.centre, frame_size, strict=True):
        extent = min(side, length)
        start = min(max(int(centre - extent / 2), 0), length - extent)
        spans.append((start, start + extent))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom
