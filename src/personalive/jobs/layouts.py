"""What an output frame shows: the result alone, the still with the result in it, or all side by side."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont

from personalive.face.crop import CropBox, Size, cut
from personalive.face.paste import PasteBack
from personalive.media import Image, fit_image

_TALLEST_PANEL = 1080
_GAP = 4
_GROUND = (24, 24, 24)
_TEXT = (225, 225, 225)
_ASPECTS = (9 / 16, 16 / 9)


class Layout(Protocol):
    """Makes output frames of one `size` (width, height). Reads only, so any thread may use it."""

    size: Size

    def compose(self, driving: Image, animated: Image) -> Image:
        """The output frame for one driving frame and its result, both uint8 RGB (H, W, 3)."""


class ResultOnly:
    """The animated frame as it is."""

    def __init__(self, size: Size) -> None:
        self.size = size

    def compose(self, driving: Image, animated: Image) -> Image:
        """The animated frame."""
        del driving
        return animated


class InStill:
    """The animated crop in the whole still, at the still's own size."""

    def __init__(self, still: Image, box: CropBox) -> None:
        self.size = (still.shape[1], still.shape[0])
        self._paste = PasteBack(still, box)

    def compose(self, driving: Image, animated: Image) -> Image:
        """The still with the animated crop in its place."""
        del driving
        return self._paste.paste(animated)


class SideBySide:
    """Reference, driving and result from left to right, equally high, each named below.

    The driving frame keeps its proportions; beyond 16:9 or 9:16 its middle is shown.
    """

    def __init__(self, reference: Image, driving_size: Size, result: Layout) -> None:
        """`reference` uint8 RGB (H, W, 3) as shown beside; `driving_size` (width, height) of the clip."""
        self._result = result
        height = min(result.size[1], _TALLEST_PANEL) // 2 * 2
        aspect = min(max(driving_size[0] / driving_size[1], _ASPECTS[0]), _ASPECTS[1])
        self._box = CropBox.largest(driving_size, aspect)
        shown = (reference.shape[1], reference.shape[0])
        panels = [_fitted(size, height) for size in (shown, (self._box.width, self._box.height), result.size)]
        starts = [_GAP]
        for width, _ in panels:
            starts.append(starts[-1] + width + _GAP)
        caption = max(height // 16, 18) // 2 * 2
        self.size = (starts.pop(), height + caption + 2 * _GAP)
        self._places = [(start, *panel) for start, panel in zip(starts, panels, strict=True)]
        self._ground = self._drawn(reference, caption)
        self._ground.setflags(write=False)

    def _drawn(self, reference: Image, caption: int) -> Image:
        """All that no frame changes: ground, names, reference."""
        picture = PIL.Image.new("RGB", self.size, _GROUND)
        draw = ImageDraw.Draw(picture)
        font = ImageFont.load_default(size=caption * 0.7)
        for name, (left, width, height) in zip(("reference", "driving", "result"), self._places, strict=True):
            middle = (left + width / 2, _GAP + height + caption / 2)
            draw.text(middle, name, _TEXT, font=font, anchor="mm")
        ground = np.array(picture)
        left, width, height = self._places[0]
        ground[_GAP : _GAP + height, left : left + width] = fit_image(reference, (width, height))
        return ground

    def compose(self, driving: Image, animated: Image) -> Image:
        """The three panels."""
        frame = self._ground.copy()
        result = self._result.compose(driving, animated)
        left, width, height = self._places[1]
        frame[_GAP : _GAP + height, left : left + width] = cut(driving, self._box, (width, height))
        left, width, height = self._places[2]
        frame[_GAP : _GAP + height, left : left + width] = fit_image(result, (width, height))
        return frame


def _fitted(size: tuple[float, float], height: int) -> Size:
    """`size` scaled to `height`, its width even."""
    return max(round(size[0] * height / size[1] / 2) * 2, 2), height
