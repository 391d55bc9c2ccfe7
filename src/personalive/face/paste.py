"""Pasting of an animated crop into the still from which it was cut, without a visible seam."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from personalive.face.crop import CropBox, extract_crop
from personalive.media.types import Image


class PasteBack:
    """A crop of a still into which animated frames are pasted. Immutable: any number of threads may share one.

    `feather`: width of the blend along the crop's edge as a share of its shorter side, 0…0.5. There is none
    where the crop reaches the still's own edge, because nothing of the still is seen beyond it.
    """

    def __init__(self, still: Image, box: CropBox, *, feather: float = 0.1) -> None:
        """Prepare to paste into `still`, uint8 RGB (H, W, 3). Raises `ValueError` where `box` covers none of it."""
        height, width = still.shape[:2]
        left, right = max(math.ceil(box.left), 0), min(math.floor(box.right), width)
        top, bottom = max(math.ceil(box.top), 0), min(math.floor(box.bottom), height)
        if left >= right or top >= bottom:
            raise ValueError("the crop covers no pixel of the still")
        if not 0.0 <= feather <= 0.5:
            raise ValueError(f"feather is a share of the side, 0…0.5, not {feather}")
        self._still = still
        self._box = box
        self._region = (slice(top, bottom), slice(left, right))
        reach = max(feather * min(box.width, box.height), 1.0)
        across = _feather_ramp((left, right), (box.left, box.right), width, reach)
        down = _feather_ramp((top, bottom), (box.top, box.bottom), height, reach)
        self._share = (down[:, None] * across[None, :])[..., None].astype(np.float32)
        # In coordinates of the animated frame, the region is a crop of the crop.
        self._inner = CropBox(
            (left - box.left) / box.width,
            (top - box.top) / box.height,
            (right - left) / box.width,
            (bottom - top) / box.height,
        )

    def paste(self, animated: Image) -> Image:
        """Return the still with `animated`, uint8 RGB (h, w, 3) of any size, in the crop's place.

        The result has the still's size; every pixel outside the crop is unchanged.
        """
        height, width = animated.shape[:2]
        rows, columns = self._region
        inner = CropBox(
            self._inner.left * width,
            self._inner.top * height,
            self._inner.width * width,
            self._inner.height * height,
        )
        fitted = extract_crop(animated, inner, (columns.stop - columns.start, rows.stop - rows.start))
        result = self._still.copy()
        below = result[self._region].astype(np.float32)
        mixed = below + (fitted - below) * self._share
        result[self._region] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
        return result


def _feather_ramp(
    span: tuple[int, int], edges: tuple[float, float], limit: int, reach: float
) -> NDArray[np.float64]:
    """Return the weight of animated pixels along one axis: 0 at the crop's edges, smoothly 1 from `reach` on."""
    at = np.arange(*span) + 0.5
    inner = np.full(len(at), np.inf)
    if edges[0] > 0:
        inner = np.minimum(inner, at - edges[0])
    if edges[1] < limit:
        inner = np.minimum(inner, edges[1] - at)
    share = np.clip((inner - 0.5) / reach, 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)
