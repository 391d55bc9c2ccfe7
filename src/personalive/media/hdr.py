"""Conversion of high dynamic range to BT.709 primaries, sRGB's transfer curve and 8 bits.

Coded colours are looked up in one table of the whole conversion: the transfer curve (BT.2100's PQ or HLG), tone
mapping by BT.2390 and the primaries. White of 203 nits, which BT.2408 specifies for HDR programmes, becomes a
little less than white, so that brighter lights still differ.
"""

from __future__ import annotations

from functools import cache
from typing import cast

import av
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageFilter

from personalive.media.types import Image

Float = NDArray[np.float64]

TRANSFER_NAMES = {16: "PQ", 18: "HLG"}
"""Names of the transfer curves (AVCOL_TRC_*) of high dynamic range."""

_LIMITED, _FULL = 1, 2
_BT709, _BT2020, _ICTCP = 1, 9, 14
# AVCOL_SPC_* to SWS_CS_* where they are not BT.2020's.
_SCALER_MATRICES = {_BT709: 1, 5: 5, 6: 5}
# XYZ of the primaries and D65 white, by AVCOL_PRI_*.
_CHROMATICITIES = {
    _BT709: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    _BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_D65 = (0.3127, 0.3290)
_WHITE_NITS, _PEAK_NITS = 203.0, 1000.0
"""Nits of white in an HDR programme, and of the brightest display that it is mastered for."""
_TABLE_STEPS = 65
# SWS_BICUBIC | SWS_FULL_CHR_H_INT | SWS_ACCURATE_RND.
_SCALER_FLAGS = 0x4 | 0x2000 | 0x40000


def detect_hdr(frame: av.VideoFrame) -> str | None:
    """Return "PQ" or "HLG" if the frame is high dynamic range, else None."""
    return TRANSFER_NAMES.get(int(frame.color_trc))


def tone_map(frame: av.VideoFrame, width: int, height: int) -> Image:
    """Convert a PQ or HLG frame to (height, width, 3) uint8 RGB, scaling it to size."""
    ictcp = int(frame.colorspace) == _ICTCP and not frame.format.is_rgb
    full = int(frame.color_range) == _FULL
    # The scaler does not support ICtCp: for it, only depth and size are converted.
    converted = frame.reformat(
        width=width,
        height=height,
        format="yuv444p" if ictcp else "rgb24",
        src_colorspace=_BT709 if ictcp else _SCALER_MATRICES.get(int(frame.colorspace), _BT2020),
        dst_colorspace=_BT709 if ictcp else None,
        src_color_range=_FULL if full or ictcp else _LIMITED,
        dst_color_range=_FULL,
        interpolation=_SCALER_FLAGS,
    )
    pixels = cast(Image, converted.to_ndarray())
    picture = PIL.Image.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, 2) if ictcp else pixels))
    transfer = detect_hdr(frame) or "PQ"
    table = (
        _build_ictcp_table(transfer, full=full)
        if ictcp
        else _build_rgb_table(transfer, int(frame.color_primaries))
    )
    return np.array(picture.filter(table), dtype=np.uint8, order="C")


@cache
def _build_rgb_table(transfer: str, primaries: int) -> ImageFilter.Color3DLUT:
    """Build the table from coded red, green and blue to the result."""
    coded = _grid()
    light = pq_to_nits(coded) if transfer == "PQ" else _scene_to_display_light(_hlg_to_scene_light(coded))
    return _build_table(light, primaries)


@cache
def _build_ictcp_table(transfer: str, *, full: bool) -> ImageFilter.Color3DLUT:
    """Build the table from BT.2100's coded intensity and its two differences (ICtCp) to the result."""
    codes = 255 * _grid()
    coded = (codes - [0, 128, 128]) / 255 if full else (codes - [16, 128, 128]) / [219, 224, 224]
    return _build_table(_ictcp_to_nits(coded, transfer), _BT2020)


def _grid() -> Float:
    levels = np.linspace(0, 1, _TABLE_STEPS)
    third, second, first = np.meshgrid(levels, levels, levels, indexing="ij")
    return np.stack([first, second, third], -1).reshape(-1, 3)


def _build_table(light: Float, primaries: int) -> ImageFilter.Color3DLUT:
    """Build the table whose entries have these nits of red, green and blue, (count, 3)."""
    shown = _encode_srgb(np.clip(_map_to_sdr(light) @ _bt709_matrix(primaries).T, 0, 1))
    return ImageFilter.Color3DLUT(_TABLE_STEPS, shown.astype(np.float32).ravel().tolist())


def _ictcp_to_nits(coded: Float, transfer: str) -> Float:
    """Convert BT.2100's coded intensity and two differences, which are of long, medium and short waves, to nits."""
    differences = (
        np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]) / 4096
        if transfer == "PQ"
        else np.array([[2048, 2048, 0], [3625, -7465, 3840], [9500, -9212, -288]]) / 4096
    )
    waves = np.clip(coded @ np.linalg.inv(differences).T, 0, 1)
    from_rgb = np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096
    light = pq_to_nits(waves) if transfer == "PQ" else _hlg_to_scene_light(waves)
    light = np.maximum(light @ np.linalg.inv(from_rgb).T, 0)
    return light if transfer == "PQ" else _scene_to_display_light(light)


def pq_to_nits(coded: Float) -> Float:
    """Convert 0…1 to nits by the curve of SMPTE ST 2084."""
    power = coded ** (32 / 2523)
    ratio = np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)
    return np.asarray(10000 * ratio ** (16384 / 2610))


def nits_to_pq(nits: Float) -> Float:
    """Convert nits to 0…1, the inverse of `pq_to_nits`."""
    power = (np.maximum(nits, 0) / 10000) ** (2610 / 16384)
    return np.asarray(((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32))


def _hlg_to_scene_light(coded: Float) -> Float:
    """Return the light in front of the camera, 0…1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.asarray(np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12))


def _scene_to_display_light(scene: Float) -> Float:
    """Return the nits with which a display of 1000 nits shows the scene."""
    luma = scene @ np.array([0.2627, 0.6780, 0.0593])
    return np.asarray(_PEAK_NITS * scene * np.maximum(luma, 1e-9)[:, None] ** 0.2)


def _map_to_sdr(nits: Float) -> Float:
    """Map nits to 0…1 of white; all three are scaled by the factor of the brightest, which keeps the hue."""
    brightest = np.maximum(nits.max(-1, keepdims=True), 1e-6)
    return np.asarray(nits * (_bt2390(brightest) / brightest) / _WHITE_NITS)


def _bt2390(nits: Float) -> Float:
    """Apply the curve of Report ITU-R BT.2390 from the brightest display to one whose peak is white; black is 0."""
    source, target = nits_to_pq(np.array(_PEAK_NITS)), nits_to_pq(np.array(_WHITE_NITS))
    level, limit = np.clip(nits_to_pq(nits) / source, 0, 1), target / source
    knee = 1.5 * limit - 0.5
    t = (level - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * limit
    )
    return pq_to_nits(np.where(level < knee, level, spline) * source)


@cache
def _bt709_matrix(primaries: int) -> Float:
    """Return the matrix (3, 3) from linear RGB of these primaries to BT.709's."""
    return np.asarray(np.linalg.inv(_xyz_matrix(_BT709)) @ _xyz_matrix(primaries))


def _xyz_matrix(primaries: int) -> Float:
    x, y = np.array(_CHROMATICITIES.get(primaries, _CHROMATICITIES[_BT2020])).T
    columns = np.stack([x / y, np.ones(3), (1 - x - y) / y])
    white = np.array([_D65[0] / _D65[1], 1, (1 - _D65[0] - _D65[1]) / _D65[1]])
    return np.asarray(columns * np.linalg.solve(columns, white))


def _encode_srgb(linear: Float) -> Float:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
