"""Decoding of untrusted pictures: bytes become one upright opaque RGB array, or one clear error.

All that can be checked is checked before a pixel is decoded: the size that a file claims, and the cost of decoding
it. Only five decoders are used, two of them in a separate process, and all their errors become `MediaError`.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
from PIL import JpegImagePlugin

from personalive.errors import MediaError, MediaTooLargeError, UnsupportedMediaError
from personalive.media.flatten import flatten
from personalive.media.frame_shape import MAX_IMAGE_PIXELS, MAX_SIDE, check_shape
from personalive.media.isolated_decoder import decode_in_subprocess
from personalive.media.picture_header import (
    HEAD_BYTES,
    ImageType,
    JpegInfo,
    detect_image_type,
    is_sequence,
    read_jpeg_info,
    read_stored_size,
)
from personalive.media.types import Image
from personalive.media.user_paths import check_is_file, translate_read_errors

MAX_IMAGE_BYTES = 100_000_000
MAX_JPEG_PIXELS = 250_000_000
"""The most pixels of a JPEG: it can be decoded at an eighth of its size, without all its pixels in memory."""
PICTURES = "JPEG, PNG, WebP, HEIC or AVIF"

_MAX_JPEG_WORK = 4_000_000_000
"""The most samples times scans. A file of a few kilobytes can ask for thousands of scans of all its pixels."""
_MAX_JPEG_COEFFICIENTS = 350_000_000
"""The most coefficients, of two bytes each, where all of them must be held."""
_ARITHMETIC_COST = 8
_ORIENTATION = 0x0112
_EXIF_TRANSPOSE = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}

# `warnings.catch_warnings` swaps process-wide state: with two threads inside it at once, the filters of one could
# stay for good.
_warnings_lock = threading.Lock()


def decode_image(data: bytes, *, name: str = "image") -> Image:
    """Decode a JPEG, PNG, WebP, HEIC or AVIF picture.

    EXIF orientation is applied, transparency is composited on white, colour profiles are converted to sRGB, and
    of an animation the first frame is taken. A JPEG, HEIC or AVIF over `MAX_IMAGE_PIXELS` is reduced by a whole
    factor. `name` is what messages call the picture.

    Returns (height, width, 3) uint8 RGB in 0..255, C-contiguous, of a shape that `check_shape` accepts.

    Raises:
        MediaTooLargeError: over the limits in bytes, pixels or decoding cost; nothing has been decoded.
        UnsupportedMediaError: not a picture of these types.
        MediaError: empty, cut short or damaged, or of a shape that cannot be used.

    """
    if not data:
        raise MediaError(f"{name} is empty.")
    check_byte_count(len(data), name)
    kind = detect_image_type(data[:HEAD_BYTES])
    if kind is None:
        raise UnsupportedMediaError(f"{name} is not a {PICTURES} picture.")
    if kind in {"HEIF", "AVIF"}:
        apart, orientation = decode_in_subprocess(data, kind, name)
        with _translate_errors(name):
            check_shape(*apart.size, name)
            return _to_upright_rgb(apart, orientation)
    with _translate_errors(name), _open(data, kind, name) as picture:
        picture.load()
        return _to_upright_rgb(picture, _read_orientation(picture))


def read_image(path: str | Path) -> Image:
    """Read and decode a picture file; see `decode_image` for what is accepted and returned.

    Raises:
        MediaTooLargeError: over the limits. The file's size is checked before it is read.
        UnsupportedMediaError: not a picture of these types.
        MediaError: missing, a directory, not readable, empty, cut short or damaged, or of no usable shape.

    """
    path = Path(path)
    check_is_file(path)
    with translate_read_errors(path), path.open("rb") as file:
        data = file.read(MAX_IMAGE_BYTES + 1)
        if len(data) > MAX_IMAGE_BYTES:
            check_byte_count(max(path.stat().st_size, len(data)), path.name)
    return decode_image(data, name=path.name)


def is_image_file(path: str | Path) -> bool:
    """Return whether the file's first bytes are those of a supported picture; False if it cannot be read.

    Animations in HEIF and AVIF files count as videos.
    """
    path = Path(path)
    try:
        check_is_file(path)
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except (OSError, MediaError):
        return False
    return detect_image_type(head) is not None and not is_sequence(head)


def fit_image(image: Image, size: tuple[int, int]) -> Image:
    """Resize (height, width, 3) uint8 to exactly `size` (width, height), without keeping proportions.

    Averages areas when both sides shrink, which avoids aliasing, and interpolates cubically otherwise.
    """
    height, width = image.shape[:2]
    if (width, height) == tuple(size):
        return image
    shrinks = size[0] <= width and size[1] <= height
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return np.ascontiguousarray(resized, dtype=np.uint8)


def fit_size(size: tuple[int, int], outer: tuple[int, int]) -> tuple[int, int]:
    """Return `size` (width, height) scaled to the largest that fits in `outer`, with its proportions kept.

    A size whose proportions are within 2 % of those of `outer` becomes `outer`.
    """
    across, down = outer[0] / size[0], outer[1] / size[1]
    if max(across, down) <= 1.02 * min(across, down):
        return outer
    scale = min(across, down)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def fit_within(image: Image, size: tuple[int, int]) -> Image:
    """Resize (height, width, 3) uint8 into `size` (width, height), with proportions kept and black borders."""
    height, width = image.shape[:2]
    image = fit_image(image, fit_size((width, height), size))
    below, beside = size[1] - image.shape[0], size[0] - image.shape[1]
    if not below and not beside:
        return image
    return np.pad(image, ((below // 2, below - below // 2), (beside // 2, beside - beside // 2), (0, 0)))


def check_byte_count(count: int, name: str) -> None:
    """Raise `MediaTooLargeError` if a picture of `count` bytes is over the limit."""
    if count > MAX_IMAGE_BYTES:
        limit = MAX_IMAGE_BYTES // 1_000_000
        raise MediaTooLargeError(f"{name} has {count / 1e6:.1f} MB; pictures may have up to {limit} MB.")


@contextmanager
def suppress_pillow_warnings() -> Iterator[None]:
    """Suppress Pillow's warnings about odd files."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _translate_errors(name: str) -> Iterator[None]:
    try:
        with suppress_pillow_warnings():
            yield
    except MediaError:
        raise
    except PIL.Image.DecompressionBombError as error:
        limit = MAX_IMAGE_PIXELS // 1_000_000
        raise MediaTooLargeError(f"{name} has over {limit} megapixels, the most that is accepted.") from error
    except Exception as error:
        # On hostile bytes decoders raise OSError, SyntaxError, ValueError, struct.error, IndexError, MemoryError
        # and more.
        raise MediaError(f"{name} is damaged or cut short and cannot be decoded.") from error


def _open(data: bytes, kind: ImageType, name: str) -> PIL.Image.Image:
    """Open a picture and check its header, without decoding it."""
    if kind == "JPEG":
        return _open_jpeg(data, name)
    size = read_stored_size(data, kind)
    if size is None:
        raise MediaError(f"{name} is damaged or cut short and cannot be decoded.")
    check_shape(*size, name)
    picture = PIL.Image.open(io.BytesIO(data), formats=(kind,))
    check_shape(*picture.size, name)
    return picture


def _open_jpeg(data: bytes, name: str) -> PIL.Image.Image:
    facts = read_jpeg_info(data)
    if facts is None:
        raise MediaError(f"{name} is damaged or cut short and cannot be decoded.")
    stored = facts.width, facts.height
    fraction = _downscale_factor(*stored)
    check_shape(stored[0] // fraction, stored[1] // fraction, name, stored=stored)
    _check_jpeg_cost(facts, name)
    # `PIL.Image.open` has another limit, on all pixels whether or not they are decoded.
    picture = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    if picture.size != stored:
        raise MediaError(f"{name} is damaged: its headers do not agree.")
    if fraction > 1:
        picture.draft(None, (stored[0] // fraction, stored[1] // fraction))
        check_shape(*picture.size, name, stored=stored)
    return picture


def _downscale_factor(width: int, height: int) -> int:
    """Return the least divisor of a JPEG's sides in decoding, 1, 2, 4 or 8, that makes it small enough, if any."""
    for fraction in (1, 2, 4):
        across, down = -(-width // fraction), -(-height // fraction)
        if across * down <= MAX_IMAGE_PIXELS and max(across, down) <= MAX_SIDE:
            return fraction
    return 8


def _check_jpeg_cost(facts: JpegInfo, name: str) -> None:
    """Raise `MediaTooLargeError` for a JPEG that takes too much memory, or more than some seconds."""
    if facts.width * facts.height > MAX_JPEG_PIXELS:
        limit = MAX_JPEG_PIXELS // 1_000_000
        raise MediaTooLargeError(
            f"{name} has {facts.width}×{facts.height} pixels: up to {limit} megapixels are accepted of a JPEG."
        )
    if facts.samples * facts.scans * (_ARITHMETIC_COST if facts.arithmetic else 1) > _MAX_JPEG_WORK:
        raise MediaTooLargeError(
            f"{name} is stored in {facts.scans} scans, which takes too long to decode: save it again, as a plain "
            "(not progressive) JPEG or smaller."
        )
    if facts.needs_full_buffer and facts.samples > _MAX_JPEG_COEFFICIENTS:
        raise MediaTooLargeError(
            f"{name} is a progressive JPEG of {facts.width}×{facts.height} pixels, which takes too much memory to "
            "decode: save it again, as a plain (not progressive) JPEG or smaller."
        )


def _to_upright_rgb(picture: PIL.Image.Image, orientation: int) -> Image:
    rgb = flatten(picture)
    if orientation in _EXIF_TRANSPOSE:
        rgb = rgb.transpose(_EXIF_TRANSPOSE[orientation])
    return np.array(rgb, dtype=np.uint8, order="C")


def _read_orientation(picture: PIL.Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:
        # A picture with a broken EXIF block is still a picture.
        return 1
