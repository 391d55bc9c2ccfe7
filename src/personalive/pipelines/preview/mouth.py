"""A mouth that opens: the inside of the mouth, drawn through the opening between the lips.

Upper teeth belong to the skull and stay with the head; lower teeth and tongue go down with the jaw. What the
portrait shows between its lips is kept and moves in the same way; only what it does not show is synthesised: a dark
cavity, a tongue, and teeth where the portrait's mouth is shut.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from personalive.face.face import Float
from personalive.face.pose import Double, HeadPose
from personalive.media.types import Image
from personalive.pipelines.preview import topology as mesh
from personalive.pipelines.preview.mesh import PixelRect, blend, polygon_mask

_PIXELS_PER_CM = 36.0
"""Texture pixels per cm of the head."""
_TEXTURE_SIZE_CM = (6.4, 7.0)
"""Width and height of the textures in cm; their origin, the middle between the lips, is at 40 % of the height."""
_UPPER_WIDTHS = (0.0, 0.42, 0.34, 0.36, 0.32, 0.31, 0.42, 0.4)
_LOWER_WIDTHS = (0.0, 0.27, 0.29, 0.33, 0.33, 0.33, 0.45, 0.4)
"""Widths of the teeth from the middle outwards, cm as seen from the front."""
_MIN_GAP_CM = 0.12
"""cm between the lips from which the portrait's mouth counts as open."""
_TEXTURE_ORIGIN_CM = (_TEXTURE_SIZE_CM[0] / 2, _TEXTURE_SIZE_CM[1] * 0.4)


@dataclass(frozen=True, slots=True, eq=False)
class MouthLayers:
    """The inside of one portrait's mouth as textures in the plane of its teeth, y down.

    `upper` and `lower` uint8 RGBA move with skull and jaw; `cavity` uint8 RGB lies behind them. `origin`
    float64 (3,): head coordinates in cm of the textures' origin.
    """

    upper: Image
    lower: Image
    cavity: Image
    origin: Double

    def draw(self, canvas: Image, landmarks: Float, pose: HeadPose, shape: Double) -> None:
        """Draw into a warped frame, in place.

        `landmarks` (478, 2) hold the lips' positions; `shape` (478, 3) cm are the displacements of all landmarks in
        head coordinates. Lips that are not displaced show what the warped portrait shows.
        """
        moved = float(np.abs(shape[mesh.mouth_ring()]).max())
        # A smile parts the lips over shut teeth, speech opens the jaw: lower teeth follow the chin, but stay near
        # the lower lip.
        jaw_drop = shape[mesh.CHIN_POINTS].mean(0)
        jaw_drop[1] = min(jaw_drop[1], shape[14, 1] + 0.35)
        ring = landmarks[mesh.mouth_ring()]
        width = float(np.linalg.norm(ring[0] - ring[10]))
        openness = _polygon_area(ring) / max(width * width, 1e-6)
        shown = float(np.clip((openness - 0.012) / 0.03, 0.0, 1.0))  # closed lips measure a little open
        shown *= min(moved / 0.1, 1.0)
        if shown == 0.0:
            return
        size = (canvas.shape[1], canvas.shape[0])
        region = PixelRect.bounding(ring, size, 3)
        if region.is_empty:
            return
        opening = polygon_mask(ring, region)
        depth = np.asarray(cv2.GaussianBlur(opening, (0, 0), max(0.035 * width, 0.8)), np.float32)
        shadow = 0.72 + 0.28 * np.clip((depth - 0.5) * 2.5, 0.0, 1.0)
        edge = np.asarray(cv2.GaussianBlur(opening, (0, 0), 0.6), np.float32) * np.float32(shown)
        blend(canvas, region, self._render_interior(pose, jaw_drop, region) * shadow[..., None], edge)

    def _render_interior(self, pose: HeadPose, jaw_drop: Double, region: PixelRect) -> Float:
        """Render the mouth as it would look without lips, float32 RGB 0…255 of a region."""
        extent = (region.width, region.height)
        linear = cv2.INTER_LINEAR
        drops = jaw_drop * np.array([[0.0], [0.5], [1.0]])
        above, middle, below = self._affine_placements(pose, self.origin + drops, region)
        inside = cv2.warpAffine(self.cavity, middle, extent, flags=linear, borderMode=cv2.BORDER_REPLICATE)
        inside = inside.astype(np.float32)
        for texture, where in ((self.lower, below), (self.upper, above)):
            layer = cv2.warpAffine(texture, where, extent, flags=linear).astype(np.float32)
            alpha = layer[..., 3:] / 255
            inside = inside + (layer[..., :3] - inside) * alpha
        return np.asarray(inside, np.float32)

    @staticmethod
    def _affine_placements(pose: HeadPose, origins: Double, region: PixelRect) -> Float:
        """Return affine maps (n, 2, 3) from texture pixels to the region's pixels, for each of `origins` (n, 3)."""
        axes = np.array([[0, 0, 0], [1, 0, 0], [0, -1, 0]], np.float64)
        at = pose.to_frame((origins[:, None] + axes).reshape(-1, 3))[:, :2].reshape(-1, 3, 2)
        at -= (region.left, region.top)
        right, down = (at[:, 1] - at[:, 0]) / _PIXELS_PER_CM, (at[:, 2] - at[:, 0]) / _PIXELS_PER_CM
        zero = (
            at[:, 0]
            - right * (_TEXTURE_ORIGIN_CM[0] * _PIXELS_PER_CM)
            - down * (_TEXTURE_ORIGIN_CM[1] * _PIXELS_PER_CM)
        )
        return np.stack([right, down, zero], axis=2).astype(np.float32)


def build_mouth(image: Image, landmarks: Float, pose: HeadPose, shape: Double) -> MouthLayers:
    """Build the layers of a portrait, uint8 RGB (H, W, 3), with landmarks (478, 2), pose and shape (478, 3)."""
    origin = (shape[13] + shape[14]) / 2
    half_width = float(np.linalg.norm(shape[mesh.INNER_LEFT] - shape[mesh.INNER_RIGHT])) / 2
    light = _estimate_illumination(image, landmarks)
    size = (round(_TEXTURE_SIZE_CM[0] * _PIXELS_PER_CM), round(_TEXTURE_SIZE_CM[1] * _PIXELS_PER_CM))
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float32)
    x, y = x / _PIXELS_PER_CM - _TEXTURE_ORIGIN_CM[0], y / _PIXELS_PER_CM - _TEXTURE_ORIGIN_CM[1]
    ring = landmarks[mesh.mouth_ring()]
    gap = float(np.linalg.norm(shape[13] - shape[14]))
    enamel = _tooth_colour(image, ring, gap, light)
    upper, lower = (_draw_teeth(x, y, half_width, enamel, upper=row) for row in (True, False))
    if gap > _MIN_GAP_CM:
        upper, lower = _blend_portrait_interior(image, ring, pose, origin, gap, upper, lower)
    return MouthLayers(upper, lower, _draw_cavity(x, y, half_width, light), origin)


def _estimate_illumination(image: Image, landmarks: Float) -> float:
    """Estimate the light's brightness from the cheeks relative to average skin, bounded as skins differ."""
    cheeks = landmarks[[50, 280, 205, 425]].round().astype(int)
    x = np.clip(cheeks[:, 0], 1, image.shape[1] - 2)
    y = np.clip(cheeks[:, 1], 1, image.shape[0] - 2)
    return float(np.clip(np.median(image[y, x].astype(np.float32)) / 150.0, 0.55, 1.05))


def _tooth_colour(image: Image, ring: Float, gap: float, light: float) -> Float:
    """Return the colour of teeth: the portrait's where it shows some, else a standard one in its light."""
    plain = np.array([220, 204, 182], np.float32) * np.float32(light)
    region = PixelRect.bounding(ring, (image.shape[1], image.shape[0]))
    inside = polygon_mask(ring, region) > 0.9
    if gap < _MIN_GAP_CM or not inside.any():
        return plain
    shown = np.asarray(region.crop(image))[inside].astype(np.float32)
    brightness = shown.mean(1)
    own = np.asarray(np.median(shown[brightness >= np.percentile(brightness, 70)], axis=0), np.float32)
    return own if own.mean() > 0.55 * plain.mean() else plain


def _draw_teeth(x: Float, y: Float, half_width: float, enamel: Float, *, upper: bool) -> Image:
    """Draw a row of teeth as RGBA: brighter in front, fading where the row curves back, gums behind."""
    unit = half_width / 1.85  # 1.85 cm is half the canonical mouth's width: teeth scale with the mouth
    edges = np.cumsum(_UPPER_WIDTHS if upper else _LOWER_WIDTHS) * unit
    side = np.abs(x)
    if upper:
        tip = (0.10 - 0.05 * (side / unit) ** 2) * unit
        depth = tip - y
        length = 0.80 * unit
    else:
        tip = (-0.16 - 0.03 * (side / unit) ** 2) * unit  # the bite: upper teeth are in front of lower ones
        depth = y - tip
        length = 0.60 * unit
    nearest = np.min(np.abs(side[..., None] - edges[None, None, :]), axis=2)
    gap = np.exp(-((nearest / (0.030 * unit)) ** 2)) * np.clip(1.1 - depth / length, 0.2, 1.0)
    bright = np.clip(1.0 - 0.40 * (side / (1.9 * unit)) ** 2, 0.16, 1.0) * (1.0 if upper else 0.82)
    bright = (
        bright * (1 - (0.20 if upper else 0.15) * gap) * (0.90 + 0.10 * np.clip(depth / (0.3 * unit), 0, 1))
    )
    gum = np.array([0.70, 0.40, 0.40], np.float32) * enamel.mean()
    above = np.clip((depth - length) / (0.12 * unit), 0.0, 1.0)[..., None]
    enamel = (
        enamel if upper else enamel * np.array([1.0, 0.95, 0.87], np.float32)
    )  # shaded by the upper teeth
    colour = (enamel * (1 - above) + gum * above) * bright[..., None]
    rounding = 0.05 * unit * (1 - np.clip(nearest / (0.12 * unit), 0, 1))
    alpha = np.clip((depth - rounding) / (0.035 * unit), 0.0, 1.0)
    alpha = alpha * np.clip((2.9 * unit - side) / (0.5 * unit), 0.0, 1.0)
    return _to_rgba(colour, alpha * 255)


def _draw_cavity(x: Float, y: Float, half_width: float, light: float) -> Image:
    """Draw darkness, redder towards the lips, and a tongue."""
    unit = half_width / 1.85
    radius = np.hypot(x / (1.9 * unit), (y - 0.6 * unit) / (1.8 * unit))
    deep, rim = np.array([24, 9, 10], np.float32), np.array([58, 24, 23], np.float32)
    colour = deep + (rim - deep) * np.clip(radius, 0, 1.2)[..., None] ** 2
    tongue = np.clip(1.25 - np.hypot(x / (1.25 * unit), (y - 1.55 * unit) / (0.95 * unit)), 0.0, 1.0)
    tongue = tongue * tongue * (3 - 2 * tongue)
    groove = 1 - 0.18 * np.exp(-((x / (0.16 * unit)) ** 2))
    flesh = np.array([148, 74, 72], np.float32) * groove[..., None]
    colour = colour + (flesh - colour) * (0.75 * tongue)[..., None]
    return np.asarray(np.clip(colour * light, 0, 255), np.uint8)


def _blend_portrait_interior(
    image: Image, ring: Float, pose: HeadPose, origin: Double, gap: float, upper: Image, lower: Image
) -> tuple[Image, Image]:
    """Composite what the portrait shows between its lips over the textures, its teeth over the upper one."""
    height, width = upper.shape[:2]
    whole = PixelRect(0, 0, image.shape[1], image.shape[0])
    (placement,) = MouthLayers._affine_placements(pose, origin[None], whole)
    inverse = cv2.invertAffineTransform(placement)
    seen = cv2.warpAffine(image, inverse, (width, height), flags=cv2.INTER_LINEAR)
    on_texture = (np.column_stack([ring, np.ones(len(ring))]) @ inverse.T).astype(np.float32)
    mask = polygon_mask(on_texture, PixelRect(0, 0, width, height))
    # Lips darken their edge, so the mask starts a little inside and extends the teeth behind them.
    core = cv2.erode((mask > 0.5).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=2)
    grown = cv2.dilate(core, np.ones((3, 3), np.uint8), iterations=round(0.45 * _PIXELS_PER_CM))
    filled = cv2.inpaint(seen, ((grown > 0) & (core == 0)).astype(np.uint8), 4, cv2.INPAINT_TELEA)
    row = np.arange(height)[:, None] / _PIXELS_PER_CM - _TEXTURE_ORIGIN_CM[1]
    wide_open = gap > 1.5  # then the lower half moves with the jaw
    share = np.clip((0.1 - row) / 0.2, 0.0, 1.0) if wide_open else np.ones_like(row)
    keep = np.where(row < 0, cv2.GaussianBlur(grown.astype(np.float32), (0, 0), 1.5), mask)
    painted = np.asarray(filled, np.uint8)
    above, below = (np.asarray(keep * part, np.float32) for part in (share, 1 - share))
    return _composite(upper, painted, above), _composite(lower, painted, below)


def _composite(texture: Image, colour: Image, alpha: Float) -> Image:
    own = alpha[..., None]
    rgb = texture[..., :3] * (1 - own) + colour * own
    below = texture[..., 3] * (1 - alpha)
    return _to_rgba(rgb, np.maximum(below, alpha * 255))


def _to_rgba(colour: Float, alpha: Float) -> Image:
    return np.asarray(np.clip(np.dstack([colour, alpha]) + 0.5, 0, 255), np.uint8)


def _polygon_area(ring: Float) -> float:
    return float(cv2.contourArea(ring))
