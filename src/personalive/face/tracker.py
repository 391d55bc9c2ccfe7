"""The dominant face of each frame of a video, near or far, and the faces of a still."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from personalive.face.face import Face, dominant, near
from personalive.face.landmarker import BoxDetector, Landmarker
from personalive.media.types import Image

Window = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of the frame; right and bottom are exclusive."""

_FAR = (0.6, 0.35, 0.2)
_VERY_FAR = (0.12, 0.07)
"""Windows' sides over the frame's: for video, and further for stills, where a second more is well spent."""
_FORGET_AFTER = 90
"""Frames without a face after which whoever comes next may be somebody else."""
_SEARCH_EVERY = 10
"""Frames between two searches for a far face while none is seen: a search costs several detections."""


def _windows(width: int, height: int, shares: Sequence[float]) -> Iterator[Window]:
    """Overlapping windows (left, top, right, bottom) of several scales; a face is whole in one of them.

    The detector was trained on selfies and misses a face narrower than about a tenth of what it is shown.
    """
    for share in shares:
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


def _search(landmarker: Landmarker, image: Image, shares: Sequence[float]) -> list[Face]:
    """Faces of the first window that holds any; `shares` of the longer side are the windows' sides."""
    height, width = image.shape[:2]
    for window in _windows(width, height, shares):
        left, top, right, bottom = window
        if faces := landmarker.find(image[top:bottom, left:right], (left, top)):
            return faces
    return []


class FaceDetector:
    """Faces of stills."""

    def __init__(self) -> None:
        self._landmarker = Landmarker(video=False)
        self._boxes: BoxDetector | None = None

    def detect(self, image: Image, *, thorough: bool = True) -> list[Face]:
        """The faces of a still, uint8 RGB (H, W, 3), largest first.

        Small ones are searched for only where no larger one is seen; `thorough` finds the smallest too and can
        take seconds where there is none.
        """
        shares = (*_FAR, *_VERY_FAR) if thorough else _FAR
        faces = self._landmarker.find(image) or _search(self._landmarker, image, shares)
        return sorted(faces, key=lambda face: -face.size)

    def dominant(self, image: Image) -> Face | None:
        """The face of a still that matters, or None."""
        return dominant(self.detect(image), (image.shape[1], image.shape[0]))

    def confidence(self, image: Image, face: Face) -> float:
        """How sure the detector is, 0…1, that a face found in this still is one."""
        left, top, right, bottom = _around(face, (image.shape[1], image.shape[0]))
        return self._likeness(image[top:bottom, left:right])

    def _likeness(self, image: Image) -> float:
        if self._boxes is None:
            self._boxes = BoxDetector()
        return self._boxes.best_score(image)

    def upside_down(self, image: Image, face: Face) -> bool:
        """Whether a face found in this still stands on its head: turned, its surroundings look more like one."""
        left, top, right, bottom = _around(face, (image.shape[1], image.shape[0]))
        around = image[top:bottom, left:right]
        return self._likeness(around[::-1, ::-1]) > self._likeness(around) + 0.15

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
    """Follows the dominant face through a video, one face at a time. Not thread-safe.

    Who is followed is decided among all faces in sight when the tracking starts and after it was lost; from then
    on only that face is looked at, which is twice as fast as watching for others. A new frame size starts anew.
    """

    def __init__(self) -> None:
        self._everyone = Landmarker(video=False)
        self._follower: Landmarker | None = None
        self._window: Window = (0, 0, 0, 0)
        self._size = (0, 0)
        self._previous: Face | None = None
        self._missed = 0

    def track(self, image: Image) -> Face | None:
        """The dominant face of the next frame, uint8 RGB (H, W, 3), or None where there is none."""
        size = (image.shape[1], image.shape[0])
        if size != self._size:
            self.reset()
            self._size = size
        face = self._follow(image) or self._find(image)
        self._missed = 0 if face is not None else self._missed + 1
        self._previous = face or (self._previous if self._missed < _FORGET_AFTER else None)
        return face

    def _follow(self, image: Image) -> Face | None:
        """The face followed so far, where it still is; otherwise nothing, and the following ends."""
        if self._follower is None or self._previous is None:
            return None
        left, top, right, bottom = self._window
        face = dominant(
            self._follower.find(image[top:bottom, left:right], (left, top)), self._size, self._previous
        )
        if face is None or not near(face, self._previous) or _leaving(face, self._window, self._size):
            self._end_following()
            return None
        return face

    def _find(self, image: Image) -> Face | None:
        """Choose a face to follow. One too small for the whole frame is searched for now and then only: a search
        costs several detections.
        """
        faces = self._everyone.find(image)
        in_sight = len(faces) == 1  # a face that the whole frame shows, and no other beside it
        if not faces and self._missed % _SEARCH_EVERY == 0:
            faces = _search(self._everyone, image, _FAR)
        face = dominant(faces, self._size, self._previous)
        if face is None:
            return None
        self._window = (0, 0, *self._size) if in_sight else _around(face, self._size)
        left, top, right, bottom = self._window
        self._follower = Landmarker(video=True, max_faces=1)
        followed = self._follower.find(image[top:bottom, left:right], (left, top))
        return followed[0] if followed and near(followed[0], face) else face

    def _end_following(self) -> None:
        if self._follower is not None:
            self._follower.close()
            self._follower = None

    def reset(self) -> None:
        """Forget the face followed so far."""
        self._end_following()
        self._previous, self._missed = None, 0

    def close(self) -> None:
        """Release the networks. May be called twice."""
        self._end_following()
        self._everyone.close()

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _around(face: Face, frame_size: tuple[int, int]) -> Window:
    """A window of four face sizes around a face, inside the frame."""
    side = int(4 * face.size)
    spans = []
    for centre, length in zip(face.centre, frame_size, strict=True):
        extent = min(side, length)
        start = min(max(int(centre - extent / 2), 0), length - extent)
        spans.append((start, start + extent))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom


def _leaving(face: Face, window: Window, frame_size: tuple[int, int]) -> bool:
    """Whether a face nears an edge of its window that is not the frame's own edge."""
    left, top, right, bottom = face.box
    margin = 0.4 * face.size
    return (
        (window[0] > 0 and left < window[0] + margin)
        or (window[1] > 0 and top < window[1] + margin)
        or (window[2] < frame_size[0] and right > window[2] - margin)
        or (window[3] < frame_size[1] and bottom > window[3] - margin)
    )
