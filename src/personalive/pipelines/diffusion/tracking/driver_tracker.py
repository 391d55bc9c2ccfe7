"""Follow the driver: where the face is, the part of the frame around it, and whether there is one.

The networks were trained on head-and-shoulders clips, while cameras show rooms. So a session looks at a crop that
keeps still while the head stays in it and follows when it strays; the head's own motion inside the crop is what
the method carries over.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from personalive.face.crop import CropBox, FollowCrop, ImageSize, extract_crop
from personalive.face.tracker import FaceTracker
from personalive.media.types import Image

_TOLERANCE = 0.35
"""How far a head may stray before the crop follows, in head heights: ordinary movement is motion, not framing."""


class TrackedFrame(NamedTuple):
    """A driving frame cut to the driver, `crop` uint8 RGB (height, width, 3), and whether a face was seen."""

    crop: Image
    has_face: bool


class DriverTracker:
    """Cut one driver's frames to `size` (width, height). Without `detect` each whole frame counts as a face."""

    def __init__(self, size: ImageSize, *, detect: bool) -> None:
        self._size = size
        self._detect = detect
        # Made by the first frame: its networks take tens of milliseconds to load, and whoever opens a session may
        # keep others from stepping theirs.
        self._tracker: FaceTracker | None = None
        self._follow_crop = FollowCrop(size[0] / size[1], tolerance=_TOLERANCE)

    def analyze(self, image: Image, time: float) -> TrackedFrame:
        """Cut the next frame, uint8 RGB (H, W, 3) at `time` in seconds."""
        size = (image.shape[1], image.shape[0])
        if not self._detect:
            box = CropBox.largest(size, self._size[0] / self._size[1])
            return TrackedFrame(extract_crop(image, box, self._size), True)
        if self._tracker is None:
            self._tracker = FaceTracker()
        face = self._tracker.track_mesh(image)
        box = self._follow_crop.update(face, size, time)
        return TrackedFrame(extract_crop(image, box, self._size), face is not None)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, as JSON. Change nothing."""
        return self._follow_crop.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue the framing from `state`; the face is looked for again."""
        if self._tracker is not None:
            self._tracker.reset()
        self._follow_crop.restore(state)

    def reset(self) -> None:
        """Forget the driver."""
        if self._tracker is not None:
            self._tracker.reset()
        self._follow_crop.reset()

    def close(self) -> None:
        """Release the networks. May be called twice."""
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None
