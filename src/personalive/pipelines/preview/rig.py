"""A hand-made rig of the canonical face: a few named expressions as displacements of its landmarks.

It serves where no driver shows the movement: to write a driving clip by script, and to remove a driver's expression
from the first frame so that the face can serve as neutral. Amounts are 0…1 with the meaning of the blendshapes of
the same name. Distances are cm of the canonical face.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from personalive.face.canonical import load_canonical_face
from personalive.face.face import LANDMARK_COUNT, Face
from personalive.face.pose import Double
from personalive.pipelines.preview import topology as mesh

_JAW_HINGE = np.array([0.0, -4.5, -6.0])
"""Axis of the jaw in cm: the jaw turns and slides forward at once, which is one rotation about this axis."""
_JAW_ANGLE = np.radians(17.0)


@cache
def expressions() -> Mapping[str, Double]:
    """Return every expression of the rig at full strength, by name: displacements, float64 (478, 3) cm."""
    x = load_canonical_face().vertices
    made = {
        "jawOpen": _jaw_open(x),
        "mouthSmileRight": _smile(x, -1),
        "mouthSmileLeft": _smile(x, 1),
        "mouthFrownRight": _landmark_weights(x, mesh.MOUTH_RIGHT, 1.4) * np.array([-0.1, -0.5, 0.0]),
        "mouthFrownLeft": _landmark_weights(x, mesh.MOUTH_LEFT, 1.4) * np.array([0.1, -0.5, 0.0]),
        "mouthPucker": _pucker(x),
        "browInnerUp": _brow(x, (55, 65, 107, 66, 285, 295, 336, 296), 1.3) * np.array([0.0, 0.75, 0.0]),
        "browOuterUpRight": _brow(x, (46, 53, 70, 63), 1.3) * np.array([0.0, 0.7, 0.0]),
        "browOuterUpLeft": _brow(x, (276, 283, 300, 293), 1.3) * np.array([0.0, 0.7, 0.0]),
        "browDownRight": _brow(x, (55, 65, 107, 66, 52, 105), 1.2) * np.array([0.12, -0.55, 0.0]),
        "browDownLeft": _brow(x, (285, 295, 336, 296, 282, 334), 1.2) * np.array([-0.12, -0.55, 0.0]),
    }
    padded = {}
    for name, displacement in made.items():
        whole = np.zeros((LANDMARK_COUNT, 3))
        whole[: len(x)] = displacement
        whole.setflags(write=False)
        padded[name] = whole
    return padded


def combine_expressions(amounts: Mapping[str, float]) -> Double:
    """Sum expressions by amount, float64 (478, 3) cm. Raises `KeyError` for a name that the rig lacks."""
    rig = expressions()
    total = np.zeros((LANDMARK_COUNT, 3))
    for name, amount in amounts.items():
        total += amount * rig[name]
    return total


def estimate_expression(face: Face, threshold: float = 0.15) -> Double:
    """Estimate a face's displacement from neutral with the rig's expressions, float64 (478, 3) cm.

    Scores up to `threshold` count as neutral: the network gives a resting face a little of most shapes.
    """
    scores = {name: face.score(name) for name in expressions()}
    strengths = {k: max(score - threshold, 0.0) / (1 - threshold) for k, score in scores.items()}
    return combine_expressions(strengths)


def _falloff(distance: Double, radius: float) -> Double:
    return np.exp(-((distance / radius) ** 2))


def _landmark_weights(x: Double, centre: int, radius: float) -> Double:
    """Return weights (n, 1), 1 at a landmark, fading over `radius` cm."""
    return _falloff(np.linalg.norm(x - x[centre], axis=1), radius)[:, None]


def _brow(x: Double, landmarks: tuple[int, ...], radius: float) -> Double:
    distance = np.linalg.norm(x[:, None] - x[list(landmarks)], axis=2).min(1)
    below_brow = np.clip((x[:, 1] - 3.2) / 0.7, 0.0, 1.0)  # closure alone moves the lids
    return np.asarray((_falloff(distance, radius) * below_brow)[:, None])


def _smile(x: Double, side: int) -> Double:
    """Move the corner out, up and back; the cheek rises with it; the upper lip is pulled flat and up."""
    corner = mesh.MOUTH_LEFT if side > 0 else mesh.MOUTH_RIGHT
    cheek = 425 if side > 0 else 205
    mine = 1 / (1 + np.exp(-side * x[:, :1] / 0.5))
    moved = _landmark_weights(x, corner, 1.7) * np.array([side * 1.0, 0.85, -0.7])
    moved += _landmark_weights(x, cheek, 1.8) * np.array([side * 0.12, 0.2, 0.05])
    moved += _landmark_weights(x, 0, 1.2) * np.array([0.0, 0.3, 0.05])
    return np.asarray(moved * mine)


def _pucker(x: Double) -> Double:
    centre = (x[13] + x[14]) / 2
    weight = _falloff(np.linalg.norm((x - centre) * [0.7, 1.0, 0.6], axis=1), 1.8)[:, None]
    pulled = weight * (centre - x) * np.array([0.38, 0.0, 0.0])
    return np.asarray(pulled + weight * np.array([0.0, 0.0, 0.5]))


def _jaw_open(x: Double) -> Double:
    """Turn the lower face about the jaw joints, each point by its share of the rotation."""
    c, s = np.cos(_JAW_ANGLE), np.sin(_JAW_ANGLE)
    arm = x - _JAW_HINGE
    turned = arm @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]).T + _JAW_HINGE
    low = np.clip((-4.2 - x[:, 1]) / 2.6, 0.0, 1.0)
    share = low * low * (3 - 2 * low)
    share *= np.clip(1.15 - np.abs(x[:, 0]) / 8.0, 0.0, 1.0)
    side = np.clip((-1.0 - x[:, 1]) / 7.0, 0.0, 1.0) * np.clip(np.abs(x[:, 0]) / 6.0, 0.0, 1.0)
    share = np.maximum(share, 0.7 * side)
    for row in mesh.LOWER_LIP_ROWS:
        reach = np.abs(x[row, 0]) / 2.46
        share[row] = 1.0 - 0.62 * reach**2
    for row in mesh.UPPER_LIP_ROWS:
        share[row] = 0.0
    share[mesh.LIP_CORNERS] = 0.3
    return np.asarray((turned - x) * share[:, None])
