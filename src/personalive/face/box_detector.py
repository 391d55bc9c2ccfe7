"""Face boxes: BlazeFace, short range, with the anchors and the merging of MediaPipe's face detector graph.

Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019,
https://arxiv.org/abs/1907.05047. The network sees 128 × 128 pixels and proposes 896 boxes; those that overlap are
merged into their mean, weighted by score, which is steadier than keeping the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from personalive.face.face import Float
from personalive.face.litert import FACE_DETECTOR, LiteRTNetwork
from personalive.face.rotated_rect import RotatedRect
from personalive.media.types import Image

SIDE = 128
"""Side in pixels of the network's input."""
_GRIDS = ((16, 2), (8, 6))
"""For each grid of anchors: cells per side, and anchors per cell."""
_MIN_SCORE = 0.5
_MIN_OVERLAP = 0.5
"""Intersection over union from which two boxes belong to one face."""
_LARGEST_LOGIT = 80.0
"""The largest logit whose exponential fits a float32."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceBox:
    """A detected face. `low` and `high` float32 (2,): the box' corners (x, y) in pixels of the frame.

    `keypoints` float32 (6, 2) pixels: the subject's right eye, left eye, nose tip, mouth, right ear, left ear.
    `score` 0…1.
    """

    low: Float
    high: Float
    keypoints: Float
    score: float

    def placed(self, offset: tuple[float, float], scale: tuple[float, float]) -> FaceBox:
        """Return the face of a window in the original's pixels.

        The window lies at `offset` (x, y) in a copy; the original is `scale` times as large as that copy.
        """
        by, at = np.array(scale, np.float32), np.array(offset, np.float32)
        return FaceBox((self.low + at) * by, (self.high + at) * by, (self.keypoints + at) * by, self.score)


class FaceBoxDetector:
    """A detector of face boxes. Not thread-safe."""

    def __init__(self) -> None:
        self._network = LiteRTNetwork(FACE_DETECTOR)

    def detect(self, image: Image) -> list[FaceBox]:
        """Return the faces of an image, uint8 RGB (H, W, 3), highest score first.

        It finds faces wider than about a tenth of the image.
        """
        square = RotatedRect.covering(image)
        pixels = square.extract(image, SIDE, beyond=cv2.BORDER_CONSTANT)
        raw, logits = self._network.run(pixels[None].astype(np.float32) / np.float32(127.5) - np.float32(1))
        scores = _sigmoid(logits.reshape(-1))
        if not (scores >= _MIN_SCORE).any():
            return []
        boxes, keypoints = _decode_boxes(raw.reshape(-1, 16))
        kept = (scores >= _MIN_SCORE) & (boxes[:, 2:] >= boxes[:, :2]).all(1)
        merged = _merge_boxes(boxes[kept], keypoints[kept], scores[kept])
        corner = np.array([square.x - square.width / 2, square.y - square.height / 2], np.float32)
        scale = np.float32(square.width)
        return [
            FaceBox(box[:2] * scale + corner, box[2:] * scale + corner, points * scale + corner, score)
            for box, points, score in merged
        ]

    def highest_score(self, image: Image) -> float:
        """Return the highest score, 0…1, of a face in an image, uint8 RGB (H, W, 3); 0 if there is none."""
        return max((box.score for box in self.detect(image)), default=0.0)

    def close(self) -> None:
        """Release the network. May be called twice."""
        self._network.close()


@cache
def _anchors() -> Float:
    """Return the centres (896, 2) of the anchors, 0…1: row by row over each grid, several at one place."""
    grids = []
    for cells, repeats in _GRIDS:
        centres = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        y, x = np.meshgrid(centres, centres, indexing="ij")
        grids.append(np.repeat(np.column_stack([x.ravel(), y.ravel()]), repeats, axis=0))
    return np.concatenate(grids)


def _decode_boxes(raw: Float) -> tuple[Float, Float]:
    """Decode raw outputs (n, 16) to boxes (n, 4), left, top, right, bottom, and keypoints (n, 6, 2), all 0…1."""
    values = raw.reshape(-1, 8, 2) / np.float32(SIDE)
    anchors = _anchors()
    centre, half = values[:, 0] + anchors, values[:, 1] / 2
    return np.concatenate([centre - half, centre + half], axis=1), values[:, 2:] + anchors[:, None]


def _merge_boxes(boxes: Float, keypoints: Float, scores: Float) -> list[tuple[Float, Float, float]]:
    """Merge overlapping boxes by weighted non-maximum suppression.

    For each overlapping set: the mean box and keypoints, and the best score.
    """
    order = np.argsort(-scores, kind="stable")
    merged = []
    while order.size:
        best = order[0]
        same = compute_overlaps(boxes[order], boxes[best]) > _MIN_OVERLAP
        same[0] = True  # a box without area overlaps nothing, itself included
        group = order[same]
        weights = scores[group] / scores[group].sum()
        box = (weights[:, None] * boxes[group]).sum(0)
        points = (weights[:, None, None] * keypoints[group]).sum(0)
        merged.append((box, points, float(scores[best])))
        order = order[~same]
    return merged


def _sigmoid(logits: Float) -> Float:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -_LARGEST_LOGIT, _LARGEST_LOGIT))), np.float32)


def compute_overlaps(boxes: Float, box: Float) -> Float:
    """Return the intersection over union of each of `boxes` (n, 4) with one box."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    common = np.maximum(sides, 0).prod(1)
    total = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod() - common
    shares: Float = common / np.maximum(total, np.float32(1e-12))
    return shares
