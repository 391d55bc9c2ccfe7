"""The filter that removes jitter from a followed face's landmarks, as MediaPipe's face landmarker does.

It is a One-Euro filter (Casiez, Roussel, Vogel, CHI 2012) that takes its speeds from the raw landmarks, not from
the filtered ones, and measures them in face sizes per second.
"""

from __future__ import annotations

import math

import numpy as np

from personalive.face.face import FaceMesh, Float

_FRAME_SECONDS = 0.033
"""Seconds between two frames, assumed constant: only their order counts, since a true clock may repeat or jump."""
_MIN_CUTOFF = 0.05
_BETA = 80.0
_DERIVATIVE_CUTOFF = 1.0
"""Hz, Hz per (face size per second), Hz: MediaPipe's constants."""


class LandmarkFilter:
    """A filter that steadies the landmarks of one face from frame to frame."""

    def __init__(self) -> None:
        self._last: Float | None = None
        self._steady: Float = np.zeros(0, np.float32)
        self._speed: Float = np.zeros(0, np.float32)

    def filter(self, mesh: FaceMesh) -> FaceMesh:
        """Return the face of the next frame, filtered. The first one passes unchanged."""
        landmarks = mesh.landmarks
        if self._last is None:
            self._steady, self._speed = landmarks, np.zeros_like(landmarks)
        else:
            speed = (landmarks - self._last) * np.float32(1 / (_FRAME_SECONDS * _mean_side(landmarks)))
            self._speed = self._speed + _smoothing_factor(_DERIVATIVE_CUTOFF) * (speed - self._speed)
            turn = np.float32(2 * math.pi * _FRAME_SECONDS) * (
                np.float32(_MIN_CUTOFF) + np.float32(_BETA) * np.abs(self._speed)
            )
            self._steady = self._steady + turn / (turn + 1) * (landmarks - self._steady)
        self._last = landmarks
        return FaceMesh(self._steady)

    def reset(self) -> None:
        """Forget the face: the next one passes unchanged."""
        self._last = None


def _mean_side(landmarks: Float) -> float:
    """Return the mean of the sides of the landmarks' bounding box, pixels."""
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    return max(float((high - low).mean()), 1e-3)


def _smoothing_factor(cutoff: float) -> np.float32:
    """Return the share of the way to a sample that a low-pass goes in one frame."""
    turn = 2 * math.pi * _FRAME_SECONDS * cutoff
    return np.float32(turn / (turn + 1))
