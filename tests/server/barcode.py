"""A number in a picture, for tests that follow single frames through cameras, codecs and crops.

Twenty bits and a checksum of eight, as black and white cells in the picture's middle square: they survive its being
cut out and resized, and codecs at bit rates that leave nothing else of a picture.
"""

from __future__ import annotations

import itertools
import zlib

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""(H, W) or (H, W, 3)."""

COUNT = 2**20
"""Numbers run from 0 to this, exclusive."""

_ROWS, _COLUMNS = 5, 6
_SPAN = 0.84
"""Share of the middle square's side that the cells cover."""
_DARK, _BRIGHT = 24, 228
_CONTRAST = 60.0
"""Least difference between the two cells that are always dark and bright; less is no barcode."""


def draw(picture: Picture, number: int) -> None:
    """Write `number` into the picture, in place. Raises `ValueError` outside 0…`COUNT`."""
    if not 0 <= number < COUNT:
        raise ValueError(f"{number} is not within 0…{COUNT}")
    rows, columns = _edges(picture)
    for place, bit in enumerate(_bits(number)):
        row, column = divmod(place, _COLUMNS)
        cell = picture[rows[row] : rows[row + 1], columns[column] : columns[column + 1]]
        cell[...] = _BRIGHT if bit else _DARK


def read(picture: Picture) -> int | None:
    """The number in the picture, or None where there is none that can be read for certain."""
    levels = _levels(picture)
    dark, bright = levels[0], levels[-1]
    if bright - dark < _CONTRAST:
        return None
    threshold = (dark + bright) / 2
    unclear = np.abs(levels - threshold) < 0.15 * (bright - dark)
    if unclear.any():
        return None
    bits = [bool(level > threshold) for level in levels]
    number = sum(bit << place for place, bit in enumerate(bits[1:21]))
    return number if bits == _bits(number) else None


def _bits(number: int) -> list[bool]:
    """A dark cell, the number, its checksum, a bright cell."""
    check = zlib.crc32(number.to_bytes(3, "little")) & 0xFF
    body = number | check << 20
    return [False, *(bool(body >> place & 1) for place in range(28)), True]


def _edges(picture: Picture) -> tuple[list[int], list[int]]:
    height, width = picture.shape[:2]
    span = _SPAN * min(height, width)
    top, left = (height - span) / 2, (width - span) / 2
    rows = [round(top + span * row / _ROWS) for row in range(_ROWS + 1)]
    columns = [round(left + span * column / _COLUMNS) for column in range(_COLUMNS + 1)]
    return rows, columns


def _levels(picture: Picture) -> NDArray[np.float64]:
    """Mean brightness of the middle of each cell."""
    rows, columns = _edges(picture)
    found = []
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            y, x = (bottom - top) // 4, (right - left) // 4
            found.append(float(picture[top + y : bottom - y, left + x : right - x].mean()))
    return np.array(found)
