"""Tracking of the driver: whether a frame shows a face, and the crop around it.

The networks were trained on head-and-shoulders clips, while cameras show rooms. So a session takes a crop that
stays still while the head is inside it, and follows when the head leaves it. The method transfers the head's motion
within the crop.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from personalive.face.choice import FaceChoice
from personalive.face.crop import CropBox, FollowCrop, ImageSize, extract_crop
from personalive.face.tracker import FaceTracker
from personalive.media.types import Image

_TOLERANCE = 0.35
"""How far a head may move before the crop follows, in head heights, so that ordinary movement stays motion."""


class TrackedFrame(NamedTuple):
    """A driving frame cropped to the driver, `crop` uint8 RGB (height, width, 3), and whether a face was found."""

    crop: Image
    has_face: bool


class DriverTracker:
    """A cropper of one driver's frames to `size` (width, height); without `detect`, each whole frame is a face."""

    def __init__(self, size: ImageSize, *, detect: bool, choice: FaceChoice | None = None) -> None:
        """`choice`: which face is followed; the dominant one by default."""
        self._choice = choice or FaceChoice()
        self._size = size
        self._detect = detect
        # Made for the first frame: its networks take tens of milliseconds to load, and opening a session may keep
        # other sessions from being stepped.
        self._tracker: FaceTracker | None = None
        self._face_state: dict[str, Any] = {}
        self._follow_crop = FollowCrop(size[0] / size[1], tolerance=_TOLERANCE)

    def choose(self, choice: FaceChoice) -> None:
        """Follow another face from the next frame on. Any thread may call it."""
        self._choice = choice
        if (tracker := self._tracker) is not None:
            tracker.choice = choice

    def analyze(self, image: Image, time: float) -> TrackedFrame:
        """Crop the next frame, uint8 RGB (H, W, 3) at `time` in seconds."""
        size = (image.shape[1], image.shape[0])
        if not self._detect:
            box = CropBox.largest(size, self._size[0] / self._size[1])
            return TrackedFrame(extract_crop(image, box, self._size), True)
        if self._tracker is None:
            self._tracker = FaceTracker(self._choice)
            self._tracker.restore(self._face_state)
        face = self._tracker.track_mesh(image)
        box = self._follow_crop.update(face, size, time)
        return TrackedFrame(extract_crop(image, box, self._size), face is not None)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON, without changing anything."""
        face = self._face_state if self._tracker is None else self._tracker.state()
        return {**self._follow_crop.state(), **({"face": face} if face else {})}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue the framing from `state`; the face is detected again, a chosen one near its last place."""
        framing = {name: value for name, value in state.items() if name != "face"}
        self._face_state = state.get("face", {})
        if self._tracker is not None:
            self._tracker.restore(self._face_state)
        self._follow_crop.restore(framing)

    def reset(self) -> None:
        """Forget the driver."""
        self._face_state = {}
        if self._tracker is not None:
            self._tracker.reset()
        self._follow_crop.reset()

    def close(self) -> None:
        """Release the networks. May be called twice."""
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None
