"""Eyes that close and look around: a lid slides over an eyeball that keeps its place.

Stretching the picture cannot close an eye: it squeezes the iris into a slit. Here the eyeball is a separate layer,
seen through the opening between the lids, and the lid is drawn from a closed eye made once per portrait: skin
extended over the opening from above and below, shaded, with a line of lashes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.face.face import Float
from personalive.face.pose import Double
from personalive.media.types import Image
from personalive.pipelines.preview.mesh import PixelRect, blend, interpolate_mesh, polygon_mask
from personalive.pipelines.preview.topology import Eye

LID_MEETING_POINT = 0.05
"""Where closed lids meet, as a share of the way from the lower lid to the upper: the lower lid rises a little."""
_LID_SKIN_HEIGHT = 1.0
"""Height above the crease at which the drawn lid softly begins, in distances from lid margin to crease."""

_LASH_REACH = 0.18
"""Reach of the drawn lid below its margin, as a share of the way from the crease: the lashes' soft edge."""
_LID_FADE_CLOSURE = 0.2
"""Closure from which the drawn lid fades in; below it, stretching the portrait's own lid is enough."""


def close_lid_margins(upper: Double, lower: Double, closure: float) -> tuple[Double, Double]:
    """Move the margins of open lids, (n, k) each in any unit, by a closure: 1 closed, below 0 wider open."""
    meeting = lower + LID_MEETING_POINT * (upper - lower)
    if closure < 0:
        return upper + closure * 0.35 * (lower - upper), lower
    return upper + closure * (meeting - upper), lower + closure * (meeting - lower)


@dataclass(frozen=True, slots=True, eq=False)
class EyeLayers:
    """One eye of one portrait, in pixels of the portrait.

    `eyeball` and `closed`, uint8 RGB of `region`: the eye without lids, and the closed eye. `strip` holds the
    positions of the lid in the portrait: the crease row, then the line where closed lids meet, corners included.
    """

    eye: Eye
    region: PixelRect
    eyeball: Image
    closed: Image
    ring: Float
    strip: Float
    triangles: NDArray[np.int32]
    iris: Float
    iris_radius: float
    width: float

    def draw(self, canvas: Image, landmarks: Float, unlidded: Float, closure: float, gaze: Float) -> None:
        """Draw the eye into a warped frame, in place.

        `landmarks` float32 (478, 2): the target positions, with the lids closed by `closure`; `unlidded` (478, 2):
        the same with the portrait's lids. `gaze` (2,) pixels of the portrait, y down.
        """
        looking = float(np.hypot(*gaze)) / (0.02 * self.width)
        shown = min(max(looking, abs(closure) / 0.04), 1.0)  # an eye at rest stays the portrait's
        if shown > 0:
            self._draw_eyeball(canvas, landmarks, unlidded[self.eye.ring], gaze, shown)
        if closure > _LID_FADE_CLOSURE:
            self._draw_lid(canvas, landmarks, unlidded, closure)

    def _draw_eyeball(
        self, canvas: Image, landmarks: Float, rigid_ring: Float, gaze: Float, shown: float
    ) -> None:
        opening = landmarks[self.eye.ring]
        region = PixelRect.bounding(opening, _image_size(canvas), 2)
        if region.is_empty:
            return
        to_portrait = _fit_affine(rigid_ring, self.ring)
        x = np.arange(region.left, region.right, dtype=np.float32)
        y = np.arange(region.top, region.bottom, dtype=np.float32)[:, None]
        u, v = (row[0] * x + (row[1] * y + row[2]) for row in to_portrait)
        far = cv2.magnitude(u - (self.iris[0] + gaze[0]), v - (self.iris[1] + gaze[1]))
        pull = np.clip(np.float32(1 + 1.05 / 1.2) - far / np.float32(1.2 * self.iris_radius), 0.0, 1.0)
        pull *= pull * (3 - 2 * pull)
        u -= gaze[0] * pull + self.region.left
        v -= gaze[1] * pull + self.region.top
        eyeball = cv2.remap(self.eyeball, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        blend(canvas, region, eyeball, polygon_mask(opening, region, 0.6) * np.float32(shown))

    def _draw_lid(self, canvas: Image, landmarks: Float, unlidded: Float, closure: float) -> None:
        fold, margin = _landmark_row(self.eye, self.eye.crease), _landmark_row(self.eye, self.eye.upper)
        top = landmarks[fold] + np.float32(_LID_SKIN_HEIGHT) * (unlidded[fold] - unlidded[margin])
        lashes = landmarks[margin] + (landmarks[margin] - landmarks[fold]) * np.float32(_LASH_REACH * closure)
        target = np.concatenate([top, landmarks[margin], lashes])
        shown = np.repeat(np.array([0.0, 1.0, 0.0], np.float32), len(fold))
        values = np.column_stack([self.strip - (self.region.left, self.region.top), shown]).astype(np.float32)
        region = PixelRect.bounding(target, _image_size(canvas), 2)
        if region.is_empty:
            return
        spread, covered = interpolate_mesh(target, values, self.triangles, region)
        lid = cv2.remap(self.closed, spread[0], spread[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        alpha = np.where(covered, np.clip(spread[2] * 4.0, 0.0, 1.0), np.float32(0))
        alpha = cv2.GaussianBlur(alpha, (0, 0), 0.7) * np.float32(
            np.clip((closure - _LID_FADE_CLOSURE) / 0.3, 0.0, 1.0)
        )
        blend(canvas, region, lid, np.asarray(alpha, np.float32))


def build_eye(image: Image, landmarks: Float, eye: Eye) -> EyeLayers:
    """Build the layers of one eye of a portrait, uint8 RGB (H, W, 3), with landmarks (478, 2)."""
    ring = landmarks[eye.ring]
    width = float(np.linalg.norm(landmarks[eye.inner] - landmarks[eye.outer]))
    region = PixelRect.bounding(
        landmarks[np.concatenate([eye.ring, eye.crease, eye.under])], _image_size(image), 0.3 * width
    )
    if region.is_empty:  # an eye beyond the picture's edge: the nearest pixel replaces it unseen
        left, top = min(region.left, image.shape[1] - 1), min(region.top, image.shape[0] - 1)
        region = PixelRect(left, top, left + 1, top + 1)
    patch = np.ascontiguousarray(region.crop(image))
    upper, lower, crease = (landmarks[_landmark_row(eye, r)] for r in (eye.upper, eye.lower, eye.crease))
    meeting = lower + np.float32(LID_MEETING_POINT) * (upper - lower)
    offset = np.array([region.left, region.top], np.float32)
    closed = _paint_closed_eye(patch, upper - offset, lower - offset, meeting - offset, width)
    iris = landmarks[eye.iris]
    radius = float(np.linalg.norm(iris[1:] - iris[0], axis=1).mean())
    lashes = meeting + (meeting - crease) * np.float32(_LASH_REACH)
    top = crease + np.float32(_LID_SKIN_HEIGHT) * (crease - upper)
    n = len(crease)
    corners = [row * n + k for row in (0, 1) for k in range(n - 1)]
    strips = [(k, k + 1, k + n) for k in corners] + [(k + 1, k + n + 1, k + n) for k in corners]
    triangles = np.array(strips, np.int32)
    if landmarks[eye.outer, 0] > landmarks[eye.inner, 0]:
        triangles = triangles[:, ::-1].copy()
    return EyeLayers(
        eye=eye,
        region=region,
        eyeball=_paint_eyeball(patch, ring - offset, iris[0] - offset, radius),
        closed=closed,
        ring=ring,
        strip=np.concatenate([top, meeting, lashes]),
        triangles=triangles,
        iris=iris[0],
        iris_radius=max(radius, 1.0),
        width=width,
    )


def _landmark_row(eye: Eye, middle: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.concatenate([[eye.outer], middle, [eye.inner]])


def _paint_eyeball(patch: Image, ring: Float, iris: Float, radius: float) -> Image:
    """Paint the eye without lids: the iris completed from its other half, the white extended."""
    height, width = patch.shape[:2]
    whole = PixelRect(0, 0, width, height)
    opening = polygon_mask(ring, whole) > 0.5
    seen = cv2.erode(opening.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    if not seen.any():
        return patch
    bare = np.asarray(cv2.inpaint(patch, (~seen).astype(np.uint8), 3, cv2.INPAINT_TELEA), np.uint8)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    mirror_x, mirror_y = 2 * iris[0] - x, 2 * iris[1] - y
    mirrored = cv2.remap(patch, mirror_x, mirror_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mirror_seen = cv2.remap(seen.astype(np.float32), mirror_x, mirror_y, cv2.INTER_LINEAR) > 0.9
    inside = (x - iris[0]) ** 2 + (y - iris[1]) ** 2 <= (1.05 * radius) ** 2
    use = ~seen & mirror_seen & inside
    bare[use] = mirrored[use]
    soft = cv2.GaussianBlur(bare, (0, 0), 1.0)
    return np.asarray(np.where(opening[..., None], patch, soft), np.uint8)


def _paint_closed_eye(patch: Image, upper: Float, lower: Float, meeting: Float, width: float) -> Image:
    """Paint skin over the opening, shaded as a lid over a ball, with lashes where the lids meet."""
    height, columns = patch.shape[:2]
    whole = PixelRect(0, 0, columns, height)
    away = (upper - lower) / np.maximum(np.linalg.norm(upper - lower, axis=1, keepdims=True), 1e-3)
    hole = np.concatenate([upper + away * (0.28 * width), (lower - away * (0.05 * width))[::-1]])
    mask = polygon_mask(hole.astype(np.float32), whole)
    skin = np.asarray(cv2.inpaint(patch, (mask > 0.01).astype(np.uint8), 4, cv2.INPAINT_TELEA), np.uint8)
    smooth = cv2.GaussianBlur(skin, (0, 0), 0.07 * width).astype(np.float32)
    line = polygon_mask(
        np.concatenate([meeting, (meeting - away * 0.01 * width)[::-1]]).astype(np.float32), whole
    )
    distance = _distance_below(meeting, height, columns) / width
    shade = (
        1.0
        - 0.16 * np.exp(-(((distance + 0.06) / 0.10) ** 2))
        + 0.05 * np.exp(-(((distance + 0.22) / 0.10) ** 2))
    )
    lashes = _lash_line(meeting, away, width, whole)
    ink = _lash_colour(patch, upper, lower)
    lid = smooth * shade[..., None]
    lid = lid * (1 - lashes[..., None]) + ink * lashes[..., None]
    blend = cv2.GaussianBlur(np.maximum(mask, line), (0, 0), max(0.03 * width, 0.8))[..., None]
    blend = np.maximum(blend, lashes[..., None])
    return np.asarray(np.clip(patch * (1 - blend) + lid * blend, 0, 255), np.uint8)


def _distance_below(curve: Float, height: int, columns: int) -> Float:
    """Return each pixel's distance below a curve that runs from side to side, in pixels; above it is negative."""
    order = np.argsort(curve[:, 0])
    level = np.interp(np.arange(columns), curve[order, 0], curve[order, 1])
    return np.asarray(np.arange(height)[:, None] - level[None, :], np.float32)


def _lash_line(meeting: Float, away: Float, width: float, whole: PixelRect) -> Float:
    """Return the coverage 0…1 of a closed eye's lashes: a line, thicker in the middle, and short strokes below."""
    scale = 4
    big = np.zeros((whole.height * scale, whole.width * scale), np.uint8)
    fine = np.linspace(0, len(meeting) - 1, 40)
    index = np.arange(len(meeting))
    curve = np.column_stack([np.interp(fine, index, meeting[:, k]) for k in (0, 1)])
    down = -np.column_stack([np.interp(fine, index, away[:, k]) for k in (0, 1)])
    swell = np.sin(np.pi * np.linspace(0.03, 0.97, 40)) ** 0.6
    for k in range(39):
        thickness = max(int(0.055 * width * scale * swell[k]), 1)
        begin, end = (curve[k : k + 2] * scale).astype(int).tolist()
        cv2.line(big, begin, end, 255, thickness)
    outward = np.linspace(-0.35, 0.35, 40)
    across = curve[-1] - curve[0]
    across = across / max(float(np.linalg.norm(across)), 1e-3)
    for k in range(2, 38, 2):
        tip = curve[k] + (down[k] + across * outward[k]) * width * 0.07 * swell[k]
        thickness = max(int(0.008 * width * scale), 1)
        begin, end = (np.stack([curve[k], tip]) * scale).astype(int).tolist()
        cv2.line(big, begin, end, 150, thickness, cv2.LINE_AA)
    small = cv2.resize(big, (whole.width, whole.height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 0.5), np.float32) / np.float32(255) * np.float32(0.85)


def _lash_colour(patch: Image, upper: Float, lower: Float) -> Float:
    """Return the colour of this eye's lash line: the darkest tenth along the upper margin."""
    points = (
        np.concatenate([upper + shift * (upper - lower) for shift in (-0.1, 0.0, 0.1)]).round().astype(int)
    )
    x = np.clip(points[:, 0], 0, patch.shape[1] - 1)
    y = np.clip(points[:, 1], 0, patch.shape[0] - 1)
    colours = patch[y, x].astype(np.float32)
    darkest = colours[np.argsort(colours.sum(1))[: max(len(colours) // 5, 1)]]
    return np.asarray(darkest.mean(0) * 0.8, np.float32)


def _fit_affine(source: Float, target: Float) -> Float:
    """Fit the least-squares affine map float32 (2, 3) from points (n, 2) to points (n, 2)."""
    middle, there = source.mean(0), target.mean(0)
    apart = source - middle
    (xx, xy), (_, yy) = (apart.T @ apart).tolist()
    least = 1e-6 * (xx + yy) + 1e-9  # points on one line leave one direction undetermined
    xx, yy = xx + least, yy + least
    inverse = np.array([[yy, -xy], [-xy, xx]], np.float32) / np.float32(xx * yy - xy * xy)
    linear = (inverse @ (apart.T @ target)).T
    return np.concatenate([linear, (there - linear @ middle)[:, None]], axis=1)


def _image_size(image: Image) -> tuple[int, int]:
    return image.shape[1], image.shape[0]
