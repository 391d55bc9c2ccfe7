"""Faces made from the canonical one, so that what a test expects of them is known exactly."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from personalive.face.canonical import load_canonical_face
from personalive.face.face import BLENDSHAPE_INDEX, BLENDSHAPES, LANDMARK_COUNT, Face
from personalive.face.pose import Double, HeadPose, rotation_matrix
from personalive.pipelines.preview import topology as mesh

PICTURE = HeadPose(np.eye(3), 12.0, np.array([256.0, -250.0, 0.0]))
"""Where a face stands in a picture of 512 × 512: upright, 12 pixels per cm."""


def head_shape() -> Double:
    """The canonical face with open eyes, irises in their middle, float64 (478, 3) cm."""
    shape = np.zeros((LANDMARK_COUNT, 3))
    shape[:468] = load_canonical_face().vertices
    for eye in mesh.EYES:
        middle = (shape[eye.inner] + shape[eye.outer]) / 2
        width = np.linalg.norm(shape[eye.inner] - shape[eye.outer])
        rim = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
        shape[eye.iris] = middle + rim * 0.2 * width
    return shape


def turned(pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> Double:
    """A rotation by angles in degrees, R = Rz(roll)·Ry(yaw)·Rx(pitch)."""
    x, y, z = (rotation_matrix(np.radians(a) * np.eye(3)[k]) for k, a in enumerate((pitch, yaw, roll)))
    return np.asarray(z @ y @ x)


def make_face(
    change: Double | None = None,
    *,
    rotation: Double | None = None,
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
    scale: float = 1.0,
    scores: Mapping[str, float] | None = None,
) -> Face:
    """A face whose shape is the canonical one plus `change` (478, 3) cm, moved by `shift` cm, y up."""
    pose = HeadPose(
        np.eye(3) if rotation is None else rotation,
        PICTURE.scale * scale,
        PICTURE.translation + PICTURE.scale * np.array(shift),
    )
    shape = head_shape() if change is None else head_shape() + change
    blendshapes = np.zeros(len(BLENDSHAPES), np.float32)
    for name, amount in (scores or {}).items():
        blendshapes[BLENDSHAPE_INDEX[name]] = amount
    return Face(pose.to_frame(shape).astype(np.float32), blendshapes)


def mirror_of_vertices() -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """For each of the 468 vertices the one on the other side of the face."""
    vertices = load_canonical_face().vertices
    distance = np.linalg.norm((vertices * [-1, 1, 1])[:, None] - vertices[None], axis=2)
    assert distance.min(axis=1).max() < 1e-3, "the canonical face is symmetric"
    return np.asarray(distance.argmin(axis=1))
