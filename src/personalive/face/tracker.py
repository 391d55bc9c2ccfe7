"""The dominant face of each frame of a video, near or far, and the faces of a still."""

from __future__ import annotations

from collections.abc import Iterator

from personalive.face.face import Face, dominant
from personalive.face.landmarker import BoxDetector, Landmarker
from personalive.media.types import Image

_SEARCH_EVERY = 10
"""Frames between two searches for a far face while none is seen: a search costs several detections."""


def _windows(width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
    """Overlapping windows (left, top, right, bottom) of three scales; a face is whole in one of them.

    The detector was trained on selfies and misses a face narrower than about a tenth of what it is shown.
    """
    for share in (0.6, 0.35, 0.2):
        side = max(int(max(width, height) * share), 64)
        w, h = min(side, width), min(side, height)
        columns = _starts(width, w)
        for top in _starts(height, h):
            for left in columns:
                yield left, top, left + w, top + h


def _starts(length: int, window: int) -> list[int]:
    if window >= length:
        return [0]
    count = -(-(length - window) // (window // 2)) + 1
    return [round(k * (length - window) / (count - 1)) for k in range(count)]


def _search(landmarker: Landmarker, image: Image) -> tuple[list[Face], tuple[int, int, int, int] | None]:
    """Faces of the first window that holds any, and that window."""
    height, width = image.shape[:2]
    for window in _windows(width, height):
        left, top, right, bottom = window
        if faces := landmarker.find(image[top:bottom, left:right], (left, top)):
            return faces, window
    return [], None


class FaceDetector:
    """Faces of stills."""

    def __init__(self) -> None:
        self._landmarker = Landmarker(video=False)
        self._boxes: BoxDetector | None = None

    def detect(self, image: Image) -> list[Face]:
        """Every face in a still, uint8 RGB (H, W, 3), largest first; small ones are searched for."""
        faces = self._landmarker.find(image) or _search(self._landmarker, image)[0]
        return sorted(faces, key=lambda face: -face.size)

    def dominant(self, image: Image) -> Face | None:
        """The face of a still that matters, or None."""
        return dominant(self.detect(image), (image.shape[1], image.shape[0]))

    def confidence(self, image: Image, face: Face) -> float:
        """How sure the detector is, 0…1, that a face found in this still is one."""
        if self._boxes is None:
            self._boxes = BoxDetector()
        left, top, right, bottom = _around(face, (image.shape[1], image.shape[0]))
        return self._boxes.best_score(image[top:bottom, left:right])

    def close(self) -> None:
        """Release the networks. May be called twice."""
        self._landmarker.close()
        if self._boxes is not None:
            self._boxes.close()

    def __enter__(self) -> FaceDetector:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class FaceTracker:
    """Follows the dominant face through a video. Frames of one tracker should have one size; a new size
    starts the search anew. Not thread-safe.
    """

    def __init__(self) -> None:
        self._landmarker = Landmarker(video=True)
        self._searcher: Landmarker | None = None
        self._window: tuple[int, int, int, int] | None = None
        self._size = (0, 0)
        self._previous: Face | None = None
        self._missed = 0

    def track(self, image: Image) -> Face | None:
        """The dominant face of the next frame, uint8 RGB (H, W, 3), or None where there is none."""
        height, width = image.shape[:2]
        if (width, height) != self._size:
            self._size, self._window, self._previous, self._missed = (width, height), None, None, 0
        left, top, right, bottom = self._window or (0, 0, width, height)
        faces = self._landmarker.find(image[top:bottom, left:right], (left, top))
        face = dominant(faces, self._size, self._previous)
        if face is None:
            face = self._far(image)
        if face is not None:
            self._previous, self._missed = face, 0
            if self._window is not None and _leaving(face, self._window):
                self._window = None if face.size > 0.15 * min(width, height) else _around(face, self._size)
        return face

    def _far(self, image: Image) -> Face | None:
        """Look for a face too small for the whole frame, now and then; follow it in a window of its own."""
        self._window = None
        self._missed += 1
        if self._missed % _SEARCH_EVERY != 1:
            return None
        if self._searcher is None:
            self._searcher = Landmarker(video=False)
        face = dominant(_search(self._searcher, image)[0], self._size)
        if face is not None:
            self._window = _around(face, self._size)
        return face

    def reset(self) -> None:
        """Forget the face followed so far."""
        self._window, self._previous, self._missed = None, None, 0

    def close(self) -> None:
        """Release the networks. May be called twice."""
        self._landmarker.close()
        if self._searcher is not None:
            self._searcher.close()

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _around(face: Face, frame_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A window of four face sizes around a face, inside the frame."""
    side = int(4 * face.size)
    spans = []
    for centre, length in zip(face.centre, frame_size, strict=True):
        extent = min(side, length)
        start = min(max(int(centre - extent / 2), 0), length - extent)
        spans.append((start, start + extent))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom


def _leaving(face: Face, window: tuple[int, int, int, int]) -> bool:
    left, top, right, bottom = face.box
    margin = 0.4 * face.size
    return (
        left < window[0] + margin
        or top < window[1] + margin
        or right > window[2] - margin
        or bottom > window[3] - margin
    )
