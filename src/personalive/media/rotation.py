"""Turns of pictures by quarters."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from personalive.errors import InputError
from personalive.media.types import Image

Rotation: TypeAlias = Literal["auto"] | int
"""How far a picture is turned clockwise: 0, 90, 180 or 270 degrees, or "auto" for what brings its face upright."""

QUARTERS = (0, 90, 180, 270)


def check_rotation(rotation: Rotation, what: str = "rotation") -> None:
    """Raise `InputError` unless a picture can be turned so."""
    if rotation != "auto" and (isinstance(rotation, bool) or rotation not in QUARTERS):
        raise InputError(f"The {what} must be auto, 0, 90, 180 or 270 degrees clockwise, not {rotation!r}.")


def rotate_image(image: Image, degrees: int) -> Image:
    """Turn (height, width, 3) uint8 clockwise by 0, 90, 180 or 270 degrees."""
    return np.ascontiguousarray(np.rot90(image, -degrees // 90)) if degrees else image
