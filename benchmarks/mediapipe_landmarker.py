"""MediaPipe's own face landmarker, which ours is compared with."""

from __future__ import annotations

from typing import Any

import numpy as np

from personalive.face.face import Face
from personalive.face.model_bundle import read_model_bundle
from personalive.media.types import Image


class MediaPipeLandmarker:
    """The same networks in MediaPipe's own graph. `video` follows one face; else up to four are found."""

    def __init__(self, *, video: bool) -> None:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        self._mediapipe: Any = mediapipe
        self._video = video
        self._milliseconds = 0
        self._graph: Any = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=read_model_bundle()),
                running_mode=vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE,
                num_faces=1 if video else 4,
                output_face_blendshapes=True,
            )
        )

    def find(self, image: Image) -> list[Face]:
        """Return the faces of an image, or of the next frame of the video."""
        wrapped = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image)
        )
        if self._video:
            self._milliseconds += 33
            result = self._graph.detect_for_video(wrapped, self._milliseconds)
        else:
            result = self._graph.detect(wrapped)
        scale = np.array([image.shape[1], image.shape[0], image.shape[1]], np.float32)
        return [
            Face(
                np.array([(p.x, p.y, p.z) for p in points], np.float32) * scale,
                np.array([shape.score for shape in shapes], np.float32),
            )
            for points, shapes in zip(result.face_landmarks, result.face_blendshapes, strict=True)
        ]

    def close(self) -> None:
        self._graph.close()
