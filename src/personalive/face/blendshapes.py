"""Blendshape scores, computed from the landmarks alone: no picture is needed."""

from __future__ import annotations

import numpy as np

from personalive.face.face import Face, FaceMesh
from personalive.face.litert import FACE_BLENDSHAPES, LiteRTNetwork

_INPUT_LANDMARKS = np.array(
    [
        *(0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54),
        *(55, 58, 61, 63, 65, 66, 67),
        *(70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146),
        *(148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181),
        *(185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293),
        *(295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361),
        *(362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398),
        *(400, 402, 405, 409, 415, 454, 466, *range(468, 478)),
    ]
)
"""The landmarks that the network was trained to read."""


class BlendshapeScorer:
    """A network that scores a face's expression. Not thread-safe."""

    def __init__(self) -> None:
        self._network = LiteRTNetwork(FACE_BLENDSHAPES)

    def score(self, mesh: FaceMesh) -> Face:
        """Return the face of a mesh with its blendshape scores, each 0…1."""
        (scores,) = self._network.run(mesh.landmarks[None, _INPUT_LANDMARKS, :2])
        return Face(mesh.landmarks, np.clip(np.nan_to_num(scores.reshape(-1)), 0.0, 1.0))

    def close(self) -> None:
        """Release the network. May be called twice."""
        self._network.close()
