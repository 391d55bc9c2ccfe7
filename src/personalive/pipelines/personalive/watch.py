"""Watching the driver: where the face is, the part of the frame around it, and whether there is one.

The networks were trained on head-and-shoulders clips, while cameras show rooms. So a session looks at a crop that
keeps still while the head stays in it and follows when it strays; the head's own motion inside the crop is what
the method carries over.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from personalive.face.crop import CropBox, FollowCrop, Size, cut
from personalive.face.tracker import FaceTracker
from personalive.media.types import Frames
from personalive.pipelines.interface import FrameChunk

_TOLERANCE = 0.35
"""How far a head may stray before the crop follows, in head heights: ordinary movement is motion, not framing."""


class Watch:
    """One driver's frames, cut to `size` (width, height); without `detect` each whole frame is taken for a face."""

    def __init__(self, size: Size, *, detect: bool) -> None:
        self._size = size
        self._tracker: FaceTracker | None = FaceTracker() if detect else None
        self._crop = FollowCrop(size[0] / size[1], tolerance=_TOLERANCE)

    def look(self, chunk: FrameChunk) -> tuple[Frames, tuple[bool, ...]]:
        """The frames uint8 (M, height, width, 3), and for each whether a face was seen."""
        found = []
        frames = np.empty((len(chunk), self._size[1], self._size[0], 3), np.uint8)
        for index, (image, time) in enumerate(zip(chunk.images, chunk.times, strict=True)):
            size = (image.shape[1], image.shape[0])
            if self._tracker is None:
                found.append(True)
                box = CropBox.largest(size, self._size[0] / self._size[1])
            else:
                face = self._tracker.track(image)
                found.append(face is not None)
                box = self._crop.follow(face, size, float(time))
            frames[index] = cut(image, box, self._size)
        return frames, tuple(found)

    def mark(self) -> dict[str, Any]:
        """What `resume` needs to look again at all that comes from here on. Changes nothing."""
        return self._crop.state()

    def pause(self) -> dict[str, Any]:
        """What `resume` needs, as JSON. The face is looked for anew afterwards, here and there alike."""
        if self._tracker is not None:
            self._tracker.reset()
        return self._crop.state()

    def resume(self, state: dict[str, Any]) -> None:
        """Go on as after the `pause` that gave this state."""
        if self._tracker is not None:
            self._tracker.reset()
        self._crop.restore(state)

    def reset(self) -> None:
        """Forget the driver."""
        if self._tracker is not None:
            self._tracker.reset()
        self._crop.reset()

    def close(self) -> None:
        """Release the networks. May be called twice."""
        if self._tracker is not None:
            self._tracker.close()
