"""Conversion of decoded frames to upright RGB, and of RGB to encoders' formats, with the right colour matrices.

The flags are FFmpeg's: a picture that carries none is taken as BT.709 if it is of HD size and as BT.601 if
smaller, which is what players do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import cache
from typing import cast

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from numpy.typing import NDArray

from personalive.media.hdr import detect_hdr, tone_map
from personalive.media.types import Image

_LIMITED, _FULL = 1, 2
_ITU709, _ITU601 = 1, 5
# AVCOL_SPC_*, as in streams, to SWS_CS_*, as the scaler takes them.
_MATRICES = {1: _ITU709, 4: 4, 5: _ITU601, 6: _ITU601, 7: 7, 9: 9, 10: 9}
# Shares of red and blue in the luma of those matrices.
_LUMA = {_ITU709: (0.2126, 0.0722), _ITU601: (0.299, 0.114)}
# SWS_BICUBIC | SWS_FULL_CHR_H_INT | SWS_ACCURATE_RND, by number because older PyAV does not name the flags.
_SCALER_FLAGS = 0x4 | 0x2000 | 0x40000

Orient = Callable[[Image], Image]


def to_rgb(frame: av.VideoFrame, width: int, height: int) -> Image:
    """Convert a decoded frame of any pixel format to (height, width, 3) uint8 RGB, scaling it to size.

    Transparency is composited on white, and high dynamic range is mapped to sRGB's range.
    """
    if detect_hdr(frame) is not None:
        return tone_map(frame, width, height)
    matrix = _MATRICES.get(frame.colorspace, _ITU709 if frame.height >= 720 else _ITU601)
    full = frame.color_range == _FULL or frame.format.name.startswith("yuvj")
    stays = (frame.width, frame.height) == (width, height)
    usual = matrix in _LUMA and frame.format.name in {"yuv420p", "yuvj420p"}
    if stays and usual and all(plane.line_size > 0 for plane in frame.planes):  # below 0: stored upside down
        return _yuv420_to_rgb(frame, matrix, full=full)
    transparent = _has_alpha(frame.format)
    converted = frame.reformat(
        width=width,
        height=height,
        format="rgba" if transparent else "rgb24",
        src_colorspace=matrix,
        src_color_range=_FULL if full else _LIMITED,
        dst_color_range=_FULL,
        interpolation=_SCALER_FLAGS,
    )
    pixels = np.ascontiguousarray(cast(Image, converted.to_ndarray()))
    return _composite_on_white(pixels) if transparent else pixels


def _has_alpha(kind: av.VideoFormat) -> bool:
    # Palettes may have transparent entries.
    return kind.name == "pal8" or any(component.is_alpha for component in kind.components)


def _composite_on_white(pixels: NDArray[np.uint8]) -> Image:
    """Composite (height, width, 4) on white: (height, width, 3)."""
    opaque = pixels[..., 3:]
    if opaque.min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    share = opaque.astype(np.uint16)
    return ((pixels[..., :3] * share + (255 - share) * 255 + 127) // 255).astype(np.uint8)


def to_limited_bt709(image: Image, pixel_format: str) -> av.VideoFrame:
    """Convert RGB (height, width, 3) uint8 to a limited-range BT.709 frame for an encoder."""
    height, width = image.shape[:2]
    if pixel_format == "yuv420p" and height % 2 == 0 and width % 2 == 0:
        converted = av.VideoFrame.from_ndarray(_rgb_to_yuv420(image), format=pixel_format)
    else:
        converted = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format=pixel_format,
            dst_colorspace=_ITU709,
            src_color_range=_FULL,
            dst_color_range=_LIMITED,
            interpolation=_SCALER_FLAGS,
        )
    converted.colorspace = 1
    converted.color_range = _LIMITED
    return converted


# FFmpeg's scaler is exact only on its slow path: OpenCV does the usual format, 8 bits and a chroma sample for four
# pixels, in a fifth of the time. Both take a chroma sample to lie in the middle of its pixels.


def _yuv420_to_rgb(frame: av.VideoFrame, matrix: int, *, full: bool) -> Image:
    width, height = frame.width, frame.height
    luma, *chroma = (_plane(frame, index) for index in range(3))
    twice = (2 * chroma[0].shape[1], 2 * chroma[0].shape[0])
    fine = [cv2.resize(c, twice, interpolation=cv2.INTER_LINEAR)[:height, :width] for c in chroma]
    return cast(Image, cv2.transform(cv2.merge([luma, *fine]), _yuv_to_rgb_matrix(matrix, full)))


def _plane(frame: av.VideoFrame, index: int) -> NDArray[np.uint8]:
    plane = frame.planes[index]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return np.asarray(rows[: plane.height, : plane.width])


def _rgb_to_yuv420(image: Image) -> NDArray[np.uint8]:
    """Convert RGB (height, width, 3), both even, to planes one below the other: (height · 3/2, width)."""
    height, width = image.shape[:2]
    matrix = _rgb_to_yuv_matrix(_ITU709)
    planes = np.empty((height * 3 // 2, width), np.uint8)
    # All three and one kept: OpenCV has no quick way to make one channel of three.
    cv2.extractChannel(cv2.transform(image, matrix), 0, planes[:height])
    small = cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    for index, plane in enumerate(cv2.split(cv2.transform(small, matrix))[1:]):
        chroma[index] = plane
    return planes


@cache
def _rgb_to_yuv_matrix(matrix: int) -> NDArray[np.float64]:
    """Return the matrix from RGB to limited-range YUV, (3, 4); its last column is added."""
    red, blue = _LUMA[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    rows = [
        luma * (219 / 255),
        (np.array([0, 0, 1]) - luma) * (112 / 255 / (1 - blue)),
        (np.array([1, 0, 0]) - luma) * (112 / 255 / (1 - red)),
    ]
    return np.column_stack([rows, [16, 128, 128]])


@cache
def _yuv_to_rgb_matrix(matrix: int, full: bool) -> NDArray[np.float64]:
    """Return the matrix from YUV to RGB, (3, 4); its last column is added."""
    to_limited = _rgb_to_yuv_matrix(matrix)
    inverse = np.linalg.inv(to_limited[:, :3])
    offset = to_limited[:, 3]
    if full:
        inverse = inverse * (np.array([219, 224, 224]) / 255)
        offset = np.array([0, 128, 128])
    return np.column_stack([inverse, -inverse @ offset])


def read_display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return the signs (a, b, c, d) of the frame's display matrix: where x and y go on the screen.

    A pixel at (x, y) is shown at (a·x + c·y, b·x + d·y), up to a shift. Each is -1, 0 or 1; angles that are
    no multiple of 90° are rounded to the nearest.
    """
    data = _matrix_bytes(frame)
    if len(data) < 36:
        return (1, 0, 0, 1)
    a, b, _, c, d = struct.unpack("=9i", data[:36])[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (_sign(a), 0, 0, _sign(d))
    return (0, _sign(b), _sign(c), 0)


def _matrix_bytes(frame: av.VideoFrame) -> bytes:
    # PyAV's stubs type this mapping by one of its entries only.
    entries = cast("Mapping[SideDataType, SideData]", frame.side_data)
    try:
        return bytes(entries[SideDataType.DISPLAYMATRIX])
    except KeyError:
        return b""


def rotation_degrees(matrix: tuple[int, int, int, int]) -> int:
    """Return the degrees clockwise (0, 90, 180, 270) by which a display matrix turns, mirroring aside."""
    a, b, _, _ = matrix
    if a:
        return 0 if a > 0 else 180
    return 90 if b > 0 else 270


def make_orient(matrix: tuple[int, int, int, int]) -> Orient | None:
    """Return a function that turns a stored picture upright by its display matrix; None if it is upright."""
    if matrix == (1, 0, 0, 1):
        return None
    a, b, c, d = matrix
    mirror_x, mirror_y = (a < 0, d < 0) if a else (c < 0, b < 0)

    def turn(image: Image) -> Image:
        turned = image if a else image.transpose(1, 0, 2)
        turned = turned[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
        return np.ascontiguousarray(turned)

    return turn


def _sign(value: int) -> int:
    return -1 if value < 0 else 1
