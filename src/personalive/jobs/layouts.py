"""Layouts of an output frame: the result alone, the still with the result in it, or all side by side."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont

from personalive.face.crop import CropBox, ImageSize, extract_crop
from personalive.face.paste import PasteBack
from personalive.media import Image, fit_image

_MAX_PANEL_HEIGHT = 1080
_GAP = 4
_BACKGROUND_COLOR = (24, 24, 24)
_TEXT_COLOR = (225, 225, 225)
_ASPECT_RANGE = (9 / 16, 16 / 9)


class Layout(Protocol):
    """Makes output frames of one `size` (width, height). Immutable, so any thread may use it."""

    size: ImageSize

    def compose(self, driving: Image, animated: Image) -> Image:
        """Return the output frame for one driving frame and its result, all uint8 RGB (H, W, 3)."""


class ResultLayout:
    """The animated frame as it is."""

    def __init__(self, size: ImageSize) -> None:
        self.size = size

    def compose(self, driving: Image, animated: Image) -> Image:
        """Return the animated frame."""
        del driving
        return animated


class PasteBackLayout:
    """The animated crop in the whole still, at the still's own size."""

    def __init__(self, still: Image, box: CropBox) -> None:
        self.size = (still.shape[1], still.shape[0])
        self._paste = PasteBack(still, box)

    def compose(self, driving: Image, animated: Image) -> Image:
        """Return the still with the animated crop in its place."""
        del driving
        return self._paste.paste(animated)


class SideBySideLayout:
    """Reference, driving and result from left to right, equally high, each named below.

    The driving frame keeps its proportions; beyond 16:9 or 9:16 its middle is shown.
    """

    def __init__(self, reference: Image, driving_size: ImageSize, result: Layout) -> None:
        """Show `reference`, uint8 RGB (H, W, 3), beside a clip of `driving_size` (width, height)."""
        self._result = result
        height = min(result.size[1], _MAX_PANEL_HEIGHT) // 2 * 2
        aspect = min(max(driving_size[0] / driving_size[1], _ASPECT_RANGE[0]), _ASPECT_RANGE[1])
        self._box = CropBox.largest(driving_size, aspect)
        shown = (reference.shape[1], reference.shape[0])
        panels = [
            _fit_to_height(size, height) for size in (shown, (self._box.width, self._box.height), result.size)
        ]
        starts = [_GAP]
        for width, _ in panels:
            starts.append(starts[-1] + width + _GAP)
        caption = max(height // 16, 18) // 2 * 2
        self.size = (starts.pop(), height + caption + 2 * _GAP)
        self._panel_positions = [(start, *panel) for start, panel in zip(starts, panels, strict=True)]
        self._background = self._draw_background(reference, caption)
        self._background.setflags(write=False)

    def _draw_background(self, reference: Image, caption: int) -> Image:
        """Draw what is the same in all frames: background, names, reference."""
        picture = PIL.Image.new("RGB", self.size, _BACKGROUND_COLOR)
        draw = ImageDraw.Draw(picture)
        font = ImageFont.load_default(size=caption * 0.7)
        for name, (left, width, height) in zip(
            ("reference", "driving", "result"), self._panel_positions, strict=True
        ):
            middle = (left + width / 2, _GAP + height + caption / 2)
            draw.text(middle, name, _TEXT_COLOR, font=font, anchor="mm")
        ground = np.array(picture)
        left, width, height = self._panel_positions[0]
        ground[_GAP : _GAP + height, left : left + width] = fit_image(reference, (width, height))
        return ground

    def compose(self, driving: Image, animated: Image) -> Image:
        """Return the three panels."""
        frame = self._background.copy()
        result = self._result.compose(driving, animated)
        left, width, height = self._panel_positions[1]
        frame[_GAP : _GAP + height, left : left + width] = extract_crop(driving, self._box, (width, height))
        left, width, height = self._panel_positions[2]
        frame[_GAP : _GAP + height, left : left + width] = fit_image(result, (width, height))
        return frame


def _fit_to_height(size: tuple[float, float], height: int) -> ImageSize:
    """Return `size` scaled to `height`, with an even width."""
    return max(round(size[0] * height / size[1] / 2) * 2, 2), height
