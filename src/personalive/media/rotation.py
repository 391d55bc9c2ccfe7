"""Rotation of pictures by multiples of 90 degrees."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from personalive.errors import InputError
from personalive.media.types import Image

Rotation: TypeAlias = Literal["auto"] | int
"""Clockwise rotation of a picture: 0, 90, 180 or 270 degrees, or "auto" for the one that makes its face upright."""

QUARTERS = (0, 90, 180, 270)


def check_rotation(rotation: Rotation, what: str = "rotation") -> None:
    """Raise `InputError` unless the rotation is valid; `what` is what the message calls it."""
    if rotation != "auto" and (isinstance(rotation, bool) or rotation not in QUARTERS):
        raise InputError(f"The {what} must be auto, 0, 90, 180 or 270 degrees clockwise, not {rotation!r}.")


def rotate_image(image: Image, degrees: int) -> Image:
    """Rotate (height, width, 3) uint8 clockwise by 0, 90, 180 or 270 degrees."""
    return np.ascontiguousarray(np.rot90(image, -degrees // 90)) if degrees else image
