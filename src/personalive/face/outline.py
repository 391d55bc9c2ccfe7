"""A picture with its faces outlined and numbered, so that people can tell which is which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from personalive.face.face import Box
from personalive.media.output import OutputFile, translate_write_errors
from personalive.media.types import Image

_COLOUR, _INK = (255, 214, 0), (20, 20, 20)
_MAX_SIDE = 2048
"""Longest side of the drawn picture in pixels."""


def draw_faces(image: Image, boxes: Sequence[Box]) -> Image:
    """Return a picture, uint8 RGB (H, W, 3), with numbered boxes, reduced where it is large."""
    picture = PIL.Image.fromarray(image)
    factor = min(_MAX_SIDE / max(picture.size), 1.0)
    if factor < 1:
        size = tuple(max(round(side * factor), 1) for side in picture.size)
        picture = picture.resize(cast("tuple[int, int]", size), PIL.Image.Resampling.LANCZOS)
    draw = PIL.ImageDraw.Draw(picture)
    line = max(round(max(picture.size) / 320), 2)
    for number, box in enumerate(boxes, 1):
        left, top, right, bottom = (side * factor for side in box)
        draw.rectangle((left, top, right, bottom), outline=_COLOUR, width=line)
        font = PIL.ImageFont.load_default(max((bottom - top) * 0.22, 14))
        _draw_number(draw, str(number), (max(left, 0), max(top, 0)), font, line)
    return np.asarray(picture)


def write_picture(path: Path, image: Image, *, overwrite: bool) -> None:
    """Write a picture, uint8 RGB (H, W, 3), without the mark of a synthetic one.

    Raises `OutputExistsError` for an existing file, unless it may be overwritten, `MediaError` where it cannot be
    written.
    """
    with OutputFile(path, overwrite=overwrite) as output, translate_write_errors(path):
        PIL.Image.fromarray(image).save(output.partial, quality=90)


def _draw_number(
    draw: PIL.ImageDraw.ImageDraw,
    number: str,
    corner: tuple[float, float],
    font: PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont,
    line: int,
) -> None:
    """Draw a number on a plate above `corner`, or below it at the picture's edge."""
    left, top, right, bottom = draw.textbbox((0, 0), number, font=font)
    height = bottom - top + 2 * line
    place = (corner[0] + line - left, max(corner[1] - height, 0) + line - top)
    left, top, right, bottom = draw.textbbox(place, number, font=font)
    draw.rectangle((left - line, top - line, right + line, bottom + line), fill=_COLOUR)
    draw.text(place, number, fill=_INK, font=font)
