"""The landmarks of the face in a box that somebody has drawn, also where no network recognizes a face there."""

from __future__ import annotations

import numpy as np

from personalive.face.blendshapes import BlendshapeScorer
from personalive.face.box_detector import compute_overlaps
from personalive.face.canonical import load_canonical_face
from personalive.face.face import BLENDSHAPES, Box, Face, FaceMesh, Float
from personalive.face.landmarker import FaceLandmarker
from personalive.face.rotated_rect import RotatedRect
from personalive.media.types import Image

_MIN_OVERLAP = 0.35
"""Intersection over union from which landmarks are those of the face in the box."""
_REGION_SIDE = 1.5
"""Side of the region that the landmark network sees, divided by that of the box."""
_WINDOW_SIDE = 2.5
"""Side of the window that the detector sees, divided by that of the box."""
_EYES = ((33, 159, 133, 145), (362, 386, 263, 374))
"""Landmarks around the subject's right and left eye: right corner, upper lid, left corner, lower lid."""
_IRIS_SHARE = 0.2
"""An iris's radius divided by the distance of its eye's corners."""


def find_face_in_box(
    landmarker: FaceLandmarker, scorer: BlendshapeScorer, image: Image, box: Box
) -> tuple[Face, bool]:
    """Return the face in a box of an image, uint8 RGB (H, W, 3), and whether landmarks were found there.

    Otherwise they are those of the canonical face, seen from the front and fitted to the box.
    """
    meshes = [*_detect_around(landmarker, image, box), *_look_at_box(landmarker, image, box)]
    best = max(meshes, key=lambda mesh: compute_overlap(mesh.box, box), default=None)
    if best is not None and compute_overlap(best.box, box) >= _MIN_OVERLAP:
        return scorer.score(best), True
    return place_canonical_face(box), False


def place_canonical_face(box: Box) -> Face:
    """Return the canonical face, seen from the front, so that its landmarks fill a box."""
    points = load_canonical_face().vertices * [1.0, -1.0, -1.0]
    low, high = points.min(0), points.max(0)
    left, top, right, bottom = box
    scale = np.array([right - left, bottom - top]) / (high - low)[:2]
    placed = np.empty((478, 3), np.float32)
    placed[:468, :2] = (points - low)[:, :2] * scale + [left, top]
    placed[:468, 2] = points[:, 2] * np.sqrt(scale.prod())
    for eye, corners in enumerate(_EYES):
        placed[468 + 5 * eye : 473 + 5 * eye] = _place_iris(placed[list(corners)])
    expression = np.zeros(len(BLENDSHAPES), np.float32)
    return Face(placed, expression)


def _place_iris(eye: Float) -> Float:
    """Return an iris' centre and four rim points (5, 3), in the middle of an eye's four points (4, 3)."""
    radius = _IRIS_SHARE * float(np.linalg.norm(eye[2, :2] - eye[0, :2]))
    rim = np.array([[0, 0, 0], [1, 0, 0], [0, -1, 0], [-1, 0, 0], [0, 1, 0]], np.float32)
    return np.asarray(eye.mean(0) + radius * rim, np.float32)


def compute_overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    return float(compute_overlaps(np.array([one]), np.array(other))[0])


def _detect_around(landmarker: FaceLandmarker, image: Image, box: Box) -> list[FaceMesh]:
    """Return the faces that the detector sees in the box's surroundings."""
    height, width = image.shape[:2]
    reach = _WINDOW_SIDE / 2 * max(box[2] - box[0], box[3] - box[1])
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    left, top = max(int(x - reach), 0), max(int(y - reach), 0)
    window = image[top : min(int(y + reach) + 1, height), left : min(int(x + reach) + 1, width)]
    if not window.size:
        return []
    boxes = landmarker.box_detector.detect(window)
    return landmarker.look_at(image, [found.placed((left, top), (1.0, 1.0)) for found in boxes])


def _look_at_box(landmarker: FaceLandmarker, image: Image, box: Box) -> list[FaceMesh]:
    """Return what the landmark network makes of the box, if it takes that for a face."""
    side = _REGION_SIDE * max(box[2] - box[0], box[3] - box[1])
    region = RotatedRect((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, side, side)
    mesh = landmarker.detect_in_region(image, region)
    return [] if mesh is None else [mesh]
