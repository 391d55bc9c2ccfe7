"""A visible watermark: "AI generated" in the lower right corner of a frame."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.media.types import Image

WATERMARK_TEXT = "AI generated"

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WIDTH_FRACTION = 0.28  # of the frame's width; it stays readable when the picture is shown small
_MIN_WIDTH = 96
_BACKGROUND_OPACITY = 0.45  # how much of the picture shows through behind the letters


def add_watermark(image: Image) -> Image:
    """Return a copy of the frame, uint8 RGB (H, W, 3), with the mark; or the frame itself if it is too small."""
    mark = _make_overlay(image.shape[1])
    if mark is None or mark[0].shape[0] > image.shape[0]:
        return image
    keep, light = mark
    height, width = keep.shape[:2]
    stamped = image.copy()
    corner = stamped[-height:, -width:]
    corner[:] = (corner * keep >> 8) + light
    return stamped


@lru_cache(maxsize=16)
def _make_overlay(frame_width: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16]] | None:
    """Return the factor of the corner (in 256ths) and what is added, uint16 (h, w, 1); None if there is no room."""
    wanted = max(_WIDTH_FRACTION * frame_width, _MIN_WIDTH)
    if wanted > frame_width:
        return None
    # Drawn large and shrunk: the font's own small sizes are hard to read.
    ink = _render_text()
    scale = 0.9 * wanted / ink.shape[1]
    margin = round(0.05 * wanted)
    drawn = (round(ink.shape[1] * scale), round(ink.shape[0] * scale))
    small = cv2.resize(ink, drawn, interpolation=cv2.INTER_AREA)
    letters = np.pad(small, margin)[..., None] / 255
    keep = (256 * _BACKGROUND_OPACITY * (1 - letters)).astype(np.uint16)
    return keep, (250 * letters).astype(np.uint16)


@lru_cache(maxsize=1)
def _render_text() -> NDArray[np.uint8]:
    """Return the text, white on black, cropped to its pixels, as the size that the font reports is not exact."""
    (width, height), below = cv2.getTextSize(WATERMARK_TEXT, _FONT, 6.0, 14)
    canvas = np.zeros((3 * height + below, 2 * width), np.uint8)
    cv2.putText(canvas, WATERMARK_TEXT, (width // 2, 2 * height), _FONT, 6.0, 255, 14, cv2.LINE_AA)
    rows, columns = np.nonzero(canvas.any(axis=1))[0], np.nonzero(canvas.any(axis=0))[0]
    return canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
