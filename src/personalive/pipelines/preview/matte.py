"""Separation of the head from its background, so that the background can stay still.

The mask is found by GrabCut (Rother et al. 2004) at a quarter of a megapixel, initialised from the face's position,
and softened along hair with a guided filter (He et al. 2010). The background behind the head is filled in from its
surroundings. Where no plausible mask is found the portrait stays a single layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.face.face import Float
from personalive.face.pose import Double
from personalive.media.types import Image
from personalive.pipelines.preview.head_layout import HeadLayout
from personalive.pipelines.preview.mesh import PixelRect, sample_image

_WORKING_SIDE = 288
_NO_RECTANGLE = (0, 0, 1, 1)


LAYER_SCALE = 2
"""Size of the head's layer over the portrait's: sampling it linearly is then as sharp as sampling the portrait with
a cubic kernel, at a quarter of the cost. Pixel x of the portrait is LAYER_SCALE·x + 0.5 there."""


@dataclass(frozen=True, slots=True, eq=False)
class MattedPortrait:
    """A portrait in two layers: portrait = head + (1 - alpha) · background, except for stray hair outside the mask.

    `head` uint8 (LAYER_SCALE·H, LAYER_SCALE·W, 4): the head in premultiplied RGB, and its alpha 0…255. `background`
    uint8 RGB (H, W, 3). `is_single_layer`: no mask was found, and the head layer covers everything.
    """

    head: NDArray[np.uint8]
    background: Image
    is_single_layer: bool

    def compose(self, where: Float, region: PixelRect) -> Image:
        """Compose a region, uint8 RGB; `where` float32 (h, w, 2) are positions in the head layer's pixels."""
        layer = sample_image(self.head, where)
        head = cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB)
        if self.is_single_layer:
            return np.asarray(head, np.uint8)
        uncovered = cv2.cvtColor(cv2.bitwise_not(cv2.extractChannel(layer, 3)), cv2.COLOR_GRAY2RGB)
        behind = cv2.multiply(region.crop(self.background), uncovered, scale=1 / 255)
        return np.asarray(cv2.add(head, behind), np.uint8)


def to_layer_coords(pixels: Float) -> Float:
    """Convert positions in the portrait, any shape, to positions in the head layer."""
    return np.asarray(np.float32(LAYER_SCALE) * pixels + np.float32(0.5 * (LAYER_SCALE - 1)), np.float32)


def separate_head(image: Image, layout: HeadLayout, others: Sequence[HeadLayout] = ()) -> MattedPortrait:
    """Separate a portrait, uint8 RGB (H, W, 3), into two layers, or one where no plausible mask is found.

    `others`: more heads in the picture, which are background and must stay unchanged.
    """
    height, width = image.shape[:2]
    scale = min(_WORKING_SIDE / max(height, width), 1.0)
    small = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    head = _segment(small, layout, others, scale)
    if head is None:
        return MattedPortrait(
            _build_head_layer(image, np.full((height, width), 255, np.uint8)), image, is_single_layer=True
        )
    rough = np.asarray(cv2.resize(head.astype(np.float32), (width, height)), np.float32)
    alpha = _refine_matte(image, rough)
    background = _inpaint_head(image, small, head, alpha, layout)
    cover = (_raise_to_possible_alpha(alpha, image, background) * 255 + 0.5).astype(np.uint8)
    behind = cv2.multiply(background, cv2.cvtColor(255 - cover, cv2.COLOR_GRAY2RGB), scale=1 / 255)
    front = np.asarray(cv2.subtract(image, behind), np.uint8)
    return MattedPortrait(_build_head_layer(front, cover), background, is_single_layer=False)


def _build_head_layer(premultiplied: Image, cover: NDArray[np.uint8]) -> NDArray[np.uint8]:
    layers = np.dstack([premultiplied, cover])
    return np.asarray(
        cv2.resize(layers, None, fx=LAYER_SCALE, fy=LAYER_SCALE, interpolation=cv2.INTER_CUBIC), np.uint8
    )


def _segment(
    small: Image, layout: HeadLayout, others: Sequence[HeadLayout], scale: float
) -> NDArray[np.uint8] | None:
    """Return a uint8 mask of the reduced portrait, 1 for the head and what is connected to it."""
    height, width = small.shape[:2]
    x, y = _face_coords(layout, small, scale)
    guess = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    guess[np.hypot(x / 0.72, np.where(y < 0, y / 0.85, y / 0.7)) < 1] = cv2.GC_PR_FGD
    guess[(y > 0.55) & (np.abs(x) < 0.45 + 1.2 * np.clip(y - 0.55, 0, 2))] = cv2.GC_PR_FGD
    guess[(np.hypot(x / 1.1, np.minimum(y, 0) / 1.35) > 1) & (y < 0.6)] = cv2.GC_BGD
    for other in others:  # each pixel belongs to the nearest head
        guess[np.hypot(*_face_coords(other, small, scale)) < np.hypot(x, y)] = cv2.GC_BGD
    outline = cv2.convexHull((layout.oval * scale).astype(np.int32))
    cv2.fillConvexPoly(guess, outline, cv2.GC_FGD)
    background = np.isin(guess, (cv2.GC_BGD, cv2.GC_PR_BGD))
    if not background.any() or not (guess == cv2.GC_FGD).any():
        return None  # the face fills the picture, or lies outside it
    smooth = cv2.bilateralFilter(small, 5, 25, 5)
    cv2.setRNGSeed(0)  # GrabCut's clusters start at random; the same portrait must give the same mask
    cv2.grabCut(smooth, guess, _NO_RECTANGLE, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    mask = np.isin(guess, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)))
    face = np.zeros_like(mask)
    cv2.fillConvexPoly(face, outline, 1)
    mask = _keep_main_part(mask | face, face)
    upper = (y < 0.5) & (mask > 0)
    share = float(upper.sum()) / max(float((face > 0).sum()), 1.0)
    return mask if 1.0 <= share <= 4.5 else None


def _face_coords(layout: HeadLayout, small: Image, scale: float) -> tuple[Double, Double]:
    """Return a head's coordinates at every pixel of the reduced portrait, each (h, w)."""
    height, width = small.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(scale)
    side, down = layout.to_face_coords(np.column_stack([x.ravel(), y.ravel()]))
    return side.reshape(height, width), down.reshape(height, width)


def _keep_main_part(mask: NDArray[np.uint8], face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keep the connected part that holds the face, with its small holes closed."""
    _, labels = cv2.connectedComponents(mask)
    label = np.bincount(labels[face > 0]).argmax()
    part = (labels == label).astype(np.uint8)
    count, holes, figures, _ = cv2.connectedComponentsWithStats(1 - part)
    for hole in range(1, count):
        if figures[hole, cv2.CC_STAT_AREA] < 0.01 * mask.size:
            part[holes == hole] = 1
    return np.asarray(part, np.uint8)


def _refine_matte(image: Image, rough: Float) -> Float:
    """Soften the edge along the picture's edges: a guided filter of the rough matte, limited to near its border."""
    guide = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
    side = max(round(0.018 * max(image.shape[:2])), 3)

    def mean(values: Float) -> Float:
        return np.asarray(cv2.blur(values, (2 * side + 1, 2 * side + 1)), np.float32)

    guide_mean, rough_mean = mean(guide), mean(rough)
    slope = (mean(guide * rough) - guide_mean * rough_mean) / (mean(guide * guide) - guide_mean**2 + 2e-3)
    offset = rough_mean - slope * guide_mean
    fine = np.clip((mean(slope) * guide + mean(offset) - 0.12) / 0.76, 0.0, 1.0)
    soft = cv2.GaussianBlur(rough, (0, 0), 1.5)
    fine = np.clip(0.6 * fine + 0.4 * soft, 0.0, 1.0)
    kernel = np.ones((2 * side + 1, 2 * side + 1), np.uint8)
    core, reach = cv2.erode(rough, kernel), cv2.dilate(rough, kernel)
    fine = np.where(core > 0.99, np.float32(1), fine)
    return np.asarray(np.where(reach < 0.01, np.float32(0), fine), np.float32)


def _raise_to_possible_alpha(alpha: Float, image: Image, background: Image) -> Float:
    """Raise a matte to the least alpha that the colours allow: no head is darker than black or brighter than white.

    With a lower alpha the head's colour would be out of range there, and glow after moving.
    """
    own, behind = image.astype(np.float32), background.astype(np.float32)
    darker = (behind - own) / np.maximum(behind, 1.0)
    brighter = (own - behind) / np.maximum(255.0 - behind, 1.0)
    least = np.maximum(darker, brighter).max(axis=2)
    return np.asarray(np.where(alpha > 0.02, np.clip(np.maximum(alpha, least), 0.0, 1.0), alpha), np.float32)


def _inpaint_head(
    image: Image, small: Image, head: NDArray[np.uint8], alpha: Float, layout: HeadLayout
) -> Image:
    """Paint over the head from its surroundings, coarsely, since little of it is seen."""
    height, width = image.shape[:2]
    grid_y, grid_x = np.mgrid[0:height:8, 0:width:8].astype(np.float32)
    share = layout.head_weights(np.column_stack([grid_x.ravel(), grid_y.ravel()]), cut_out=True)
    moving = cv2.resize(share.reshape(grid_x.shape).astype(np.float32), (width, height))
    reach = (
        2 * max(round(0.028 * max(small.shape[:2])), 2) + 1
    )  # stray hair outside the mask must not colour the background
    hidden = cv2.dilate(head, np.ones((reach, reach), np.uint8))
    body = cv2.resize((moving < 0.02).astype(np.uint8), (small.shape[1], small.shape[0])) > 0
    hole = (hidden > 0) & ~body
    painted = cv2.resize(_fill_hole(small, hole, hidden == 0), (width, height), interpolation=cv2.INTER_CUBIC)
    weight = cv2.resize(hole.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    weight = np.maximum(np.clip(weight * 2, 0, 1), (alpha > 0.02) * (moving > 0.02))[..., None]
    return np.clip(image * (1 - weight) + painted * weight + 0.5, 0, 255).astype(np.uint8)


def _fill_hole(small: Image, hole: NDArray[np.bool_], wall: NDArray[np.bool_]) -> Image:
    """Fill a hole smoothly from the `wall` around it: averages over decreasing distances, the finest last."""
    known = wall.astype(np.float32)
    colours = small.astype(np.float32) * known[..., None]
    if not known.any():
        return small
    filled = np.broadcast_to(colours.sum((0, 1)) / known.sum(), colours.shape)
    for reach in (64.0, 32.0, 16.0, 8.0, 4.0):
        weight = np.asarray(cv2.GaussianBlur(known, (0, 0), reach))[..., None]
        near = np.asarray(cv2.GaussianBlur(colours, (0, 0), reach)) / np.maximum(weight, 1e-6)
        trust = np.clip(weight / 0.25, 0.0, 1.0)
        filled = filled + (near - filled) * trust
    return np.where(hole[..., None], np.clip(filled + 0.5, 0, 255), small).astype(np.uint8)
