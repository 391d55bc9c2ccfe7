"""The position of the head in a portrait, derived from its face."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from personalive.face.face import Float
from personalive.face.pose import Double
from personalive.pipelines.preview import topology as mesh


@dataclass(frozen=True, slots=True, eq=False)
class HeadLayout:
    """The axes of a face in the picture.

    `centre`, unit vectors `across` (to its side) and `down` (to its chin), `width` and `height` of the face in
    pixels, and its outline `oval` float32 (36, 2).
    """

    centre: Float
    across: Float
    down: Float
    width: float
    height: float
    oval: Float

    @classmethod
    def from_landmarks(cls, landmarks: Float) -> HeadLayout:
        """Compute the layout from landmarks (≥ 468, 2 or more) in pixels."""
        top, chin = landmarks[mesh.FOREHEAD, :2], landmarks[mesh.CHIN, :2]
        down = (chin - top) / max(float(np.linalg.norm(chin - top)), 1e-3)
        across = np.array([down[1], -down[0]], np.float32)
        oval = np.ascontiguousarray(landmarks[mesh.OVAL, :2])
        reach = (oval - (top + chin) / 2) @ across
        middle = (top + chin) / 2 + across * (reach.max() + reach.min()) / 2
        return cls(
            middle,
            across,
            down,
            max(float(np.ptp(reach)), 1.0),
            max(float(np.linalg.norm(chin - top)), 1.0),
            oval,
        )

    def to_face_coords(self, pixels: Float) -> tuple[Double, Double]:
        """Convert pixels (n, 2) to face widths to the side and face heights down, from the middle of the face."""
        offset = pixels - self.centre
        return offset @ self.across / self.width, offset @ self.down / self.height

    def distance_outside_oval(self, pixels: Float) -> Double:
        """Return the distance in pixels of points (n, 2) from the face's outline, 0 inside."""
        outline = self.oval.reshape(-1, 1, 2)
        inside = [cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y in pixels]
        return np.asarray(np.maximum(-np.array(inside), 0.0))

    def head_weights(self, pixels: Float, *, cut_out: bool) -> Double:
        """Return how much each pixel (n, 2) moves with the head, 0…1: face, ears and hair fully, the neck less.

        `cut_out`: the head is a separate layer, so that pixels beside it may move unseen, and hair of any size
        moves as a whole. Otherwise the weight fades to zero around the head.
        """
        x, y = self.to_face_coords(pixels)
        up, below = np.maximum(-y, 0.0), np.maximum(y, 0.0)
        narrow = 1.0 - 0.30 * np.clip(below / 0.5, 0.0, 1.0)  # a neck is slimmer than a head
        if cut_out:
            lift = np.clip((0.25 - y) / 0.4, 0.0, 1.0)
            top_in, top_out = 1.8, 3.0
        else:
            lift, top_in, top_out = np.full_like(y, 0.08), 0.80, 1.15
        sides_in, sides_out = 0.60 + 0.86 * lift, 0.98 + 1.57 * lift
        inner = np.hypot(np.hypot(x / (sides_in * narrow), up / top_in), below / 0.54)
        outer = np.hypot(np.hypot(x / (sides_out * narrow), up / top_out), below / 1.10)
        beyond = np.maximum(inner - 1, 0.0)
        along = beyond / np.maximum(beyond + 1 - np.minimum(outer, 1.0), 1e-6)
        return np.where(outer >= 1, 0.0, smooth_falloff(along))


def smooth_falloff(x: Double | Float) -> Double:
    """Return a falloff that is 1 at 0 and 0 from 1 on, smooth at both ends."""
    t = np.clip(1.0 - np.asarray(x, np.float64), 0.0, 1.0)
    return np.asarray(t * t * t * (t * (6 * t - 15) + 10))
