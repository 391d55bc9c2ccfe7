"""The head cut out of its background, so that the background can stay where it is.

The cut is GrabCut (Rother et al. 2004) told by the face where a head is likely, at a quarter of a megapixel, and
softened along hair with a guided filter (He et al. 2010). What the head uncovers when it moves is filled in from
around it. Where no believable cut is found the portrait is left in one piece.
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
"""The head's layer is kept at so many times the portrait's size: sampling it linearly is then as sharp as sampling
the portrait with a cubic kernel, at a quarter of the cost. Pixel x of the portrait is SHEET·x + 0.5 there."""


@dataclass(frozen=True, slots=True, eq=False)
class MattedPortrait:
    """A portrait in two layers: portrait = head + (1 - cover) · background, but for stray hair past the cut.

    `head` uint8 (SHEET·H, SHEET·W, 4): the head in premultiplied RGB, and its cover 0…255. `background` uint8
    RGB (H, W, 3). `is_single_layer`: no cut was found, the sheet covers everything.
    """

    head: NDArray[np.uint8]
    background: Image
    is_single_layer: bool

    def compose(self, where: Float, region: PixelRect) -> Image:
        """The picture of a region, uint8 RGB: `where` float32 (h, w, 2) samples the sheet in its own pixels."""
        layer = sample_image(self.head, where)
        head = cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB)
        if self.is_single_layer:
            return np.asarray(head, np.uint8)
        uncovered = cv2.cvtColor(cv2.bitwise_not(cv2.extractChannel(layer, 3)), cv2.COLOR_GRAY2RGB)
        behind = cv2.multiply(region.crop(self.background), uncovered, scale=1 / 255)
        return np.asarray(cv2.add(head, behind), np.uint8)


def to_layer_coords(pixels: Float) -> Float:
    """Positions in the portrait, any shape, as positions on the sheet."""
    return np.asarray(np.float32(LAYER_SCALE) * pixels + np.float32(0.5 * (LAYER_SCALE - 1)), np.float32)


def separate_head(image: Image, layout: HeadLayout, others: Sequence[HeadLayout] = ()) -> MattedPortrait:
    """The two layers of a portrait, uint8 RGB (H, W, 3); in one piece where no cut can be trusted.

    `others`: more heads in the picture, which are background and must stay as they are.
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
    """The head (and what hangs together with it) as 1 in a uint8 mask of the reduced portrait."""
    height, width = small.shape[:2]
    x, y = _face_coords(layout, small, scale)
    guess = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    guess[np.hypot(x / 0.72, np.where(y < 0, y / 0.85, y / 0.7)) < 1] = cv2.GC_PR_FGD
    guess[(y > 0.55) & (np.abs(x) < 0.45 + 1.2 * np.clip(y - 0.55, 0, 2))] = cv2.GC_PR_FGD
    guess[(np.hypot(x / 1.1, np.minimum(y, 0) / 1.35) > 1) & (y < 0.6)] = cv2.GC_BGD
    for other in others:  # each pixel is the nearest head's
        guess[np.hypot(*_face_coords(other, small, scale)) < np.hypot(x, y)] = cv2.GC_BGD
    outline = cv2.convexHull((layout.oval * scale).astype(np.int32))
    cv2.fillConvexPoly(guess, outline, cv2.GC_FGD)
    background = np.isin(guess, (cv2.GC_BGD, cv2.GC_PR_BGD))
    if not background.any() or not (guess == cv2.GC_FGD).any():
        return None  # the face fills the picture, or lies outside it
    smooth = cv2.bilateralFilter(small, 5, 25, 5)
    cv2.setRNGSeed(0)  # its colour clusters start at random; the same portrait must give the same cut
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
    """A head's own coordinates at every pixel of the reduced portrait, each (h, w)."""
    height, width = small.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(scale)
    side, down = layout.to_face_coords(np.column_stack([x.ravel(), y.ravel()]))
    return side.reshape(height, width), down.reshape(height, width)


def _keep_main_part(mask: NDArray[np.uint8], face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The connected part that holds the face, its small holes closed."""
    _, labels = cv2.connectedComponents(mask)
    mine = np.bincount(labels[face > 0]).argmax()
    part = (labels == mine).astype(np.uint8)
    count, holes, figures, _ = cv2.connectedComponentsWithStats(1 - part)
    for hole in range(1, count):
        if figures[hole, cv2.CC_STAT_AREA] < 0.01 * mask.size:
            part[holes == hole] = 1
    return np.asarray(part, np.uint8)


def _refine_matte(image: Image, rough: Float) -> Float:
    """A soft edge that follows the picture's own: a guided filter of the rough matte, kept near its border."""
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
    """A matte raised to what the colours allow: no head is darker than black or brighter than white.

    A softer edge would make the head's own colour fall out of range there, and glow once it has moved.
    """
    own, behind = image.astype(np.float32), background.astype(np.float32)
    darker = (behind - own) / np.maximum(behind, 1.0)
    brighter = (own - behind) / np.maximum(255.0 - behind, 1.0)
    least = np.maximum(darker, brighter).max(axis=2)
    return np.asarray(np.where(alpha > 0.02, np.clip(np.maximum(alpha, least), 0.0, 1.0), alpha), np.float32)


def _inpaint_head(
    image: Image, small: Image, head: NDArray[np.uint8], alpha: Float, layout: HeadLayout
) -> Image:
    """The picture with the moving head painted over from what surrounds it, coarse as nobody looks there long."""
    height, width = image.shape[:2]
    grid_y, grid_x = np.mgrid[0:height:8, 0:width:8].astype(np.float32)
    share = layout.head_weights(np.column_stack([grid_x.ravel(), grid_y.ravel()]), cut_out=True)
    moving = cv2.resize(share.reshape(grid_x.shape).astype(np.float32), (width, height))
    reach = (
        2 * max(round(0.028 * max(small.shape[:2])), 2) + 1
    )  # stray hair past the cut must not colour the wall
    hidden = cv2.dilate(head, np.ones((reach, reach), np.uint8))
    body = cv2.resize((moving < 0.02).astype(np.uint8), (small.shape[1], small.shape[0])) > 0
    hole = (hidden > 0) & ~body
    painted = cv2.resize(_fill_hole(small, hole, hidden == 0), (width, height), interpolation=cv2.INTER_CUBIC)
    weight = cv2.resize(hole.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    weight = np.maximum(np.clip(weight * 2, 0, 1), (alpha > 0.02) * (moving > 0.02))[..., None]
    return np.clip(image * (1 - weight) + painted * weight + 0.5, 0, 255).astype(np.uint8)


def _fill_hole(small: Image, hole: NDArray[np.bool_], wall: NDArray[np.bool_]) -> Image:
    """A hole filled from the wall around it, smoothly: averages over ever smaller reach, the finest last."""
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
