"""Indices of the eyes, the lids, the lips and the face's outline among the 478 landmarks.

They are those of MediaPipe's face mesh. "Right" is the subject's right, which is on the left of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


def _indices(*numbers: int) -> Indices:
    return np.array(numbers, np.intp)


@dataclass(frozen=True, eq=False)
class Eye:
    """Landmarks of one eye. `upper`, `lower` and `crease` run in parallel from the outer to the inner corner.

    `upper` and `lower` are the lid margins between the corners (7 each), `crease` the fold above the upper lid,
    `under` the row below the lower lid; `iris` is the centre, then four points of its rim.
    """

    outer: int
    inner: int
    upper: Indices
    lower: Indices
    crease: Indices
    under: Indices
    iris: Indices
    blink: str

    @cached_property
    def ring(self) -> Indices:
        """The 16 points around the opening, in order."""
        return np.concatenate([[self.outer], self.upper, [self.inner], self.lower[::-1]])


RIGHT_EYE = Eye(
    outer=33,
    inner=133,
    upper=_indices(246, 161, 160, 159, 158, 157, 173),
    lower=_indices(7, 163, 144, 145, 153, 154, 155),
    crease=_indices(247, 30, 29, 27, 28, 56, 190),
    under=_indices(25, 110, 24, 23, 22, 26, 112),
    iris=_indices(468, 469, 470, 471, 472),
    blink="eyeBlinkRight",
)
LEFT_EYE = Eye(
    outer=263,
    inner=362,
    upper=_indices(466, 388, 387, 386, 385, 384, 398),
    lower=_indices(249, 390, 373, 374, 380, 381, 382),
    crease=_indices(467, 260, 259, 257, 258, 286, 414),
    under=_indices(255, 339, 254, 253, 252, 256, 341),
    iris=_indices(473, 474, 475, 476, 477),
    blink="eyeBlinkLeft",
)
EYES = (RIGHT_EYE, LEFT_EYE)

MOUTH_RIGHT, MOUTH_LEFT = 61, 291
INNER_RIGHT, INNER_LEFT = 78, 308
UPPER_INNER_LIP = _indices(191, 80, 81, 82, 13, 312, 311, 310, 415)
LOWER_INNER_LIP = _indices(95, 88, 178, 87, 14, 317, 402, 318, 324)
"""Both run from the subject's right to the left, without corners."""

LOWER_LIP_ROWS = (
    LOWER_INNER_LIP,
    _indices(96, 89, 179, 86, 15, 316, 403, 319, 325),
    _indices(77, 90, 180, 85, 16, 315, 404, 320, 307),
    _indices(146, 91, 181, 84, 17, 314, 405, 321, 375),
)
UPPER_LIP_ROWS = (
    UPPER_INNER_LIP,
    _indices(183, 42, 41, 38, 12, 268, 271, 272, 407),
    _indices(184, 74, 73, 72, 11, 302, 303, 304, 408),
    _indices(185, 40, 39, 37, 0, 267, 269, 270, 409),
)
LIP_CORNERS = _indices(61, 76, 62, 78, 291, 306, 292, 308)

BROW_RIGHT = _indices(46, 53, 52, 65, 55, 70, 63, 105, 66, 107)
BROW_LEFT = _indices(276, 283, 282, 295, 285, 300, 293, 334, 296, 336)

OVAL = _indices(
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""The face's outline, clockwise in the picture from the middle of the forehead."""

FOREHEAD, CHIN = 10, 152
CHIN_POINTS = _indices(152, 148, 377, 175, 199)
CHEEK_RIGHT, CHEEK_LEFT = 234, 454


@cache
def mouth_ring() -> Indices:
    """Return the 20 points around the mouth opening, in order."""
    return np.concatenate([[INNER_RIGHT], UPPER_INNER_LIP, [INNER_LEFT], LOWER_INNER_LIP[::-1]])
