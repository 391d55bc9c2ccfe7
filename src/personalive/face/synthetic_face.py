"""A face drawn from the canonical mesh: a picture of no real person, to check the landmark network with."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.face.canonical import CanonicalFace, load_canonical_face
from personalive.media.types import Image

_FRAME_WIDTH = 34.0
"""Width of the picture in cm at the face: about what a webcam shows."""
_SKIN, _HAIR, _LIPS, _WALL = (224, 178, 155), (60, 45, 38), (170, 90, 90), (120, 130, 140)
_EYES = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
)
_BROWS = (
    (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
)
_MOUTH = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
_SUBPIXEL = 4
"""Fractional bits of the fixed-point coordinates that OpenCV's drawing takes."""


def render_synthetic_face(side: int = 256) -> tuple[Image, NDArray[np.float64]]:
    """Render a square picture of `side` pixels, uint8 RGB, and return it with its landmarks (468, 2) in pixels."""
    canonical = load_canonical_face()
    scale = side / _FRAME_WIDTH
    places = side / 2 + canonical.vertices[:, :2] * (scale, -scale)
    image: Image = np.full((side, side, 3), _WALL, np.uint8)
    middle = side // 2
    crown = (middle, round(0.46 * side))
    cv2.ellipse(image, crown, (round(8.6 * scale), round(11.5 * scale)), 0, 0, 360, _HAIR, -1)
    neck = round(4 * scale)
    cv2.rectangle(image, (middle - neck, round(0.6 * side)), (middle + neck, side), _SKIN, -1)
    _shade(image, canonical, places)
    for eye in _EYES:
        _fill(image, places[list(eye)], (240, 240, 240))
        iris = places[list(eye)].mean(0)
        cv2.circle(
            image,
            _to_fixed_point(iris),
            round(0.6 * scale * 2**_SUBPIXEL),
            (50, 35, 25),
            -1,
            cv2.LINE_AA,
            _SUBPIXEL,
        )
    for brow in _BROWS:
        _fill(image, places[list(brow)], _HAIR)
    _fill(image, places[list(_MOUTH)], _LIPS)
    return image, places


def _shade(image: Image, canonical: CanonicalFace, places: NDArray[np.float64]) -> None:
    """Draw the mesh lit from above, back to front."""
    corners = canonical.vertices[canonical.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    light = np.array([0.2, 0.5, 0.85]) / np.linalg.norm([0.2, 0.5, 0.85])
    bright = 0.45 + 0.55 * np.clip(normals @ light, 0, 1)
    for k in np.argsort(corners[:, :, 2].mean(1)):
        if normals[k, 2] > 0:
            red, green, blue = (float(channel * bright[k]) for channel in _SKIN)
            _fill(image, places[canonical.triangles[k]], (red, green, blue))


def _fill(image: Image, polygon: NDArray[np.float64], colour: tuple[float, float, float]) -> None:
    points = np.rint(polygon * 2**_SUBPIXEL).astype(np.int32)
    cv2.fillPoly(image, [points], colour, cv2.LINE_AA, _SUBPIXEL)


def _to_fixed_point(place: NDArray[np.float64]) -> tuple[int, int]:
    return round(float(place[0]) * 2**_SUBPIXEL), round(float(place[1]) * 2**_SUBPIXEL)
