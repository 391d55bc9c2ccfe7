"""Landmarks: 478 points of each face of an image, or of the face in one region of it.

The arithmetic around the networks is that of MediaPipe's face landmarker graph: the same regions, thresholds and
projections, so that positions agree with it to a fraction of a pixel. Depth differs where a head is tilted in a
frame that is not square: MediaPipe stretches it by the frame's proportions; here it is in pixels like x and y.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from personalive.face.box_detector import FaceBox, FaceBoxDetector
from personalive.face.face import LANDMARK_COUNT, FaceMesh, Float
from personalive.face.litert import FACE_LANDMARKS, LiteRTNetwork
from personalive.face.rotated_rect import RotatedRect
from personalive.media.types import Image

_INPUT_SIDE = 256
_MIN_PRESENCE_LOGIT = 0.0
"""The network's logit from which a region counts as a face: a probability of a half."""


class FaceLandmarker:
    """A detector of face landmarks. Not thread-safe. `max_faces` bounds the number of faces per image."""

    def __init__(self, *, max_faces: int = 4) -> None:
        self.box_detector = FaceBoxDetector()
        self._network = LiteRTNetwork(FACE_LANDMARKS)
        self._max_faces = max_faces

    def detect(self, image: Image) -> list[FaceMesh]:
        """Return the faces in `image`, uint8 RGB (H, W, 3), highest score first."""
        return self.look_at(image, self.box_detector.detect(image))

    def look_at(self, image: Image, boxes: Sequence[FaceBox]) -> list[FaceMesh]:
        """Return the faces in the first `max_faces` of these boxes of `image`, uint8 RGB (H, W, 3)."""
        regions = (
            RotatedRect.from_detection(box.low, box.high, box.keypoints[:2])
            for box in boxes[: self._max_faces]
        )
        return [mesh for region in regions if (mesh := self.detect_in_region(image, region)) is not None]

    def detect_in_region(self, image: Image, region: RotatedRect) -> FaceMesh | None:
        """Return the face in a region of `image`, uint8 RGB (H, W, 3), or None if the region shows none."""
        pixels = region.extract(image, _INPUT_SIDE, beyond=cv2.BORDER_REPLICATE)
        points, presence, *_ = self._network.run(pixels[None].astype(np.float32) / np.float32(255))
        if not presence.item() > _MIN_PRESENCE_LOGIT:
            return None
        landmarks: Float = region.to_frame(points.reshape(LANDMARK_COUNT, 3) / np.float32(_INPUT_SIDE))
        return FaceMesh(landmarks) if np.isfinite(landmarks).all() else None

    def close(self) -> None:
        """Release the networks. May be called twice."""
        self.box_detector.close()
        self._network.close()
