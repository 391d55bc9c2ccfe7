"""MediaPipe's Face Landmarker behind one small class: image in, faces out, and nothing on the terminal."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from personalive.face.face import BLENDSHAPES, Face
from personalive.face.model import bundle_member, model_bytes
from personalive.media.types import Image

_quiet_lock = threading.Lock()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send the C++ runtime's start-up chatter to nowhere; its errors arrive as exceptions."""
    with _quiet_lock:
        try:
            saved = os.dup(2)
        except OSError:  # no stderr to protect
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nowhere)


def _release(network: Any) -> None:
    """Close a network, once: its own finaliser would close it again, and closing twice crashes.

    When the interpreter is ending, its worker thread has gone already and closing can only fail: the memory
    is left to the system. When Ctrl-C comes meanwhile, the worker thread goes on closing.
    """
    try:
        network.close()
    except RuntimeError:
        pass
    finally:
        network._handle = None


class Landmarker:
    """One landmark network. `video=True` follows faces from frame to frame, so times must grow.

    Not thread-safe. `max_faces` bounds how many faces one image may give.
    """

    def __init__(self, *, video: bool, max_faces: int = 4) -> None:
        with _quiet():
            from mediapipe import Image as MediaPipeImage
            from mediapipe import ImageFormat
            from mediapipe.tasks.python import BaseOptions, vision

            self._wrap: Any = lambda pixels: MediaPipeImage(image_format=ImageFormat.SRGB, data=pixels)
            mode = vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE
            self._network: Any = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    base_options=BaseOptions(model_asset_buffer=model_bytes()),
                    running_mode=mode,
                    num_faces=max_faces,
                    output_face_blendshapes=True,
                    output_facial_transformation_matrixes=True,
                )
            )
            self._release = weakref.finalize(self, _release, self._network)
            self._video = video
            self._clock = 0
            if not video:  # the first run is the noisy one; a video's would start its tracking
                self._network.detect(self._wrap(np.zeros((64, 64, 3), np.uint8)))

    def find(self, image: Image, offset: tuple[float, float] = (0.0, 0.0)) -> list[Face]:
        """Faces in `image`, uint8 RGB (H, W, 3); `offset` (x, y) pixels is added to every landmark."""
        pixels = self._wrap(np.ascontiguousarray(image))
        if not self._video:
            result = self._network.detect(pixels)
        else:
            self._clock += 33  # only the order matters to the tracking; a true clock may repeat or jump
            if self._clock == 33:
                with _quiet():
                    result = self._network.detect_for_video(pixels, self._clock)
            else:
                result = self._network.detect_for_video(pixels, self._clock)
        height, width = image.shape[:2]
        scale = np.array([width, height, width], np.float32)
        shift = np.array([*offset, 0.0], np.float32)
        return [
            Face(
                np.array([(p.x, p.y, p.z) for p in points], np.float32) * scale + shift,
                np.array([shape.score for shape in shapes], np.float32),
                np.asarray(matrix, np.float32),
            )
            for points, shapes, matrix in zip(
                result.face_landmarks,
                result.face_blendshapes,
                result.facial_transformation_matrixes,
                strict=True,
            )
            if len(shapes) == len(BLENDSHAPES)
        ]

    def close(self) -> None:
        """Release the network. May be called twice."""
        self._release()


class BoxDetector:
    """The bundle's face detector by itself: the landmark network keeps its scores to itself."""

    def __init__(self) -> None:
        with _quiet():
            from mediapipe import Image as MediaPipeImage
            from mediapipe import ImageFormat
            from mediapipe.tasks.python import BaseOptions, vision

            self._wrap: Any = lambda pixels: MediaPipeImage(image_format=ImageFormat.SRGB, data=pixels)
            options = vision.FaceDetectorOptions(
                base_options=BaseOptions(model_asset_buffer=bundle_member("face_detector.tflite"))
            )
            self._network: Any = vision.FaceDetector.create_from_options(options)
            self._release = weakref.finalize(self, _release, self._network)
            self._network.detect(self._wrap(np.zeros((64, 64, 3), np.uint8)))

    def best_score(self, image: Image) -> float:
        """The score, 0…1, of the surest face in an image, uint8 RGB (H, W, 3); 0 where it sees none."""
        found = self._network.detect(self._wrap(np.ascontiguousarray(image))).detections
        return max((float(detection.categories[0].score) for detection in found), default=0.0)

    def close(self) -> None:
        """Release the network. May be called twice."""
        self._release()
