"""Head pose, and the shape of a face in head coordinates, with the pose removed.

Landmarks are read as a scaled orthographic picture: P = s·R·X + t with P = (x, -y, -z) in pixels and X in cm
of the canonical face. R, s, t come from a weighted least-squares fit to the points that expressions move least
(Umeyama 1991). This is the fit behind MediaPipe's facial transformation matrix, without its perspective: on real
footage its angles correlate with the matrix's with r ≥ 0.98, and less of the pose leaks into the shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.face.canonical import load_canonical_face
from personalive.face.face import Float

Double = NDArray[np.float64]

_FLIP = np.array([1.0, -1.0, -1.0])


@dataclass(frozen=True, slots=True, eq=False)
class HeadPose:
    """The pose of a head.

    `rotation` float64 (3, 3), head to camera; `scale` pixels per cm; `translation` float64 (3,) pixels, y up, of
    the canonical origin.
    """

    rotation: Double
    scale: float
    translation: Double

    def to_head(self, landmarks: Float | Double) -> Double:
        """Convert points (n, 3) of a frame, in pixels, to head coordinates in cm."""
        return np.asarray((landmarks * _FLIP - self.translation) @ self.rotation / self.scale)

    def to_frame(self, shape: Double) -> Double:
        """Convert points (n, 3) in head coordinates, cm, to pixels of a frame: x right, y down, z away."""
        return np.asarray((self.scale * shape @ self.rotation.T + self.translation) * _FLIP)

    @property
    def angles(self) -> Double:
        """(pitch, yaw, roll) in degrees of R = Rz(roll)·Ry(yaw)·Rx(pitch)."""
        return euler_angles(self.rotation)


def fit_head_pose(landmarks: Float | Double) -> HeadPose:
    """Fit the head pose of landmarks (≥ 468, 3) in pixels, as in `Face.landmarks`."""
    weights, model_mean, pull, extent = _rigid_fit_constants()
    picture = landmarks[:468].astype(np.float64) * _FLIP
    picture_mean = weights @ picture
    # `pull` sums to zero, so the picture's mean need not be subtracted.
    left, spread, right = np.linalg.svd(picture.T @ pull)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = (left * signs) @ right
    scale = float((spread * signs).sum() / extent)
    return HeadPose(rotation, scale, picture_mean - scale * rotation @ model_mean)


@cache
def _rigid_fit_constants() -> tuple[Double, Double, Double, float]:
    """Return the constants of the fit, computed from the canonical face.

    They are: weights (468,) that sum to 1, the weighted mean (3,) of the vertices, the vertices (468, 3) relative
    to that mean times their weights, and the weighted mean square of their distance from it.
    """
    canonical = load_canonical_face()
    weights = np.asarray(canonical.rigid_weights / canonical.rigid_weights.sum(), np.float64)
    mean = weights @ canonical.vertices
    centred = canonical.vertices - mean
    return weights, mean, weights[:, None] * centred, float(weights @ (centred**2).sum(1))


def euler_angles(rotation: Double | Float) -> Double:
    """Return (pitch, yaw, roll) in degrees of a rotation or transformation matrix Rz(roll)·Ry(yaw)·Rx(pitch)."""
    r = np.asarray(rotation, np.float64)[:3, :3]
    r = r / np.cbrt(np.linalg.det(r))
    return np.degrees(
        [
            np.arctan2(r[2, 1], r[2, 2]),
            np.arcsin(np.clip(-r[2, 0], -1.0, 1.0)),
            np.arctan2(r[1, 0], r[0, 0]),
        ]
    )


def rotation_vector(rotation: Double) -> Double:
    """Return the axis times the angle in radians, float64 (3,), of a rotation by less than 180°."""
    cosine = np.clip((np.trace(rotation) - 1) / 2, -1.0, 1.0)
    angle = float(np.arccos(cosine))
    axis = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine = np.sin(angle)
    return axis * (0.5 if sine < 1e-8 else angle / (2 * sine))


def rotation_matrix(vector: Double) -> Double:
    """Return the rotation, float64 (3, 3), about `vector` (3,) by its length in radians (Rodrigues)."""
    return np.asarray(cv2.Rodrigues(vector)[0], np.float64)
