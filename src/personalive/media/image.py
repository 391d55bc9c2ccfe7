"""Pictures from strangers: bytes in, one upright opaque RGB array out, or one clear sentence.

Everything is checked that can be checked before a pixel is decoded. Only three decoders are ever tried, and
whatever they raise leaves here as a `MediaError`.
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
from PIL import ImageCms

from personalive.errors import MediaError, MediaTooLargeError, UnsupportedMediaError
from personalive.media.types import Image

MAX_IMAGE_BYTES = 20_000_000
MAX_IMAGE_PIXELS = 40_000_000

_FORMATS = ("JPEG", "PNG", "WEBP")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
_PROFILE_SPACES = {"RGB": "RGB", "CMYK": "CMYK", "L": "GRAY"}

# `warnings.catch_warnings` swaps process-wide state: two threads inside it at once could leave the filters
# of one behind for good.
_warnings_lock = threading.Lock()


def decode_image(data: bytes, *, name: str = "image") -> Image:
    """Decode a JPEG, PNG or WebP picture.

    EXIF orientation is applied, transparency is laid on white, colour profiles are converted to sRGB, and of
    an animation the first frame is taken. `name` is what messages call the picture.

    Returns (height, width, 3) uint8 RGB in 0..255, C-contiguous.

    Raises:
        MediaTooLargeError: over `MAX_IMAGE_BYTES` or `MAX_IMAGE_PIXELS`; nothing has been decoded.
        UnsupportedMediaError: not a JPEG, PNG or WebP picture.
        MediaError: empty, cut short or damaged.

    """
    if not data:
        raise MediaError(f"{name} is empty.")
    check_byte_count(len(data), name)
    if image_type(data) is None:
        raise UnsupportedMediaError(f"{name} is not a JPEG, PNG or WebP picture.")
    with _decoding(name), PIL.Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
        check_pixel_count(*picture.size, name)
        picture.load()
        return _upright_rgb(picture)


def read_image(path: str | Path) -> Image:
    """Read and decode a picture file; see `decode_image` for what is accepted and returned.

    Raises:
        MediaTooLargeError: over the limits. The file's size is looked at before it is read.
        UnsupportedMediaError: not a JPEG, PNG or WebP picture.
        MediaError: missing, a directory, not readable, empty, cut short or damaged.

    """
    path = Path(path)
    check_is_file(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
            if len(data) > MAX_IMAGE_BYTES:
                check_byte_count(max(path.stat().st_size, len(data)), path.name)
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror or error}.") from error
    return decode_image(data, name=path.name)


def is_image_file(path: str | Path) -> bool:
    """Whether the file's first bytes are those of a JPEG, PNG or WebP; False if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return image_type(file.read(16)) is not None
    except OSError:
        return False


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


def inner_size(size: tuple[int, int], outer: tuple[int, int]) -> tuple[int, int]:
    """Return `size` (width, height) scaled to the largest that lies within `outer`, its proportions kept.

    To within 2 %: what is as good as of one shape fills it.
    """
    across, down = outer[0] / size[0], outer[1] / size[1]
    if max(across, down) <= 1.02 * min(across, down):
        return outer
    scale = min(across, down)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def fit_within(image: Image, size: tuple[int, int]) -> Image:
    """Resize (height, width, 3) uint8 into `size` (width, height), its proportions kept, black beside it."""
    height, width = image.shape[:2]
    image = fit_image(image, inner_size((width, height), size))
    below, beside = size[1] - image.shape[0], size[0] - image.shape[1]
    if not below and not beside:
        return image
    return np.pad(image, ((below // 2, below - below // 2), (beside // 2, beside - beside // 2), (0, 0)))


def image_type(head: bytes) -> str | None:
    """ "JPEG", "PNG", "WEBP" or None, by the first 12 bytes."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return None


def check_is_file(path: Path) -> None:
    """Raise `MediaError` unless `path` is an existing regular file."""
    try:
        if path.is_dir():
            raise MediaError(f"{path} is a directory, not a file.")
        if not path.exists():
            raise MediaError(f"{path} does not exist.")
        # Opening a pipe or a device could wait for ever.
        if not path.is_file():
            raise MediaError(f"{path} is not a regular file.")
    except (OSError, ValueError) as error:
        raise MediaError(f"{str(path)!r} cannot be read: {error}.") from error


def check_byte_count(count: int, name: str) -> None:
    """Raise `MediaTooLargeError` if a picture of `count` bytes is over the limit."""
    if count > MAX_IMAGE_BYTES:
        limit = MAX_IMAGE_BYTES // 1_000_000
        raise MediaTooLargeError(f"{name} has {count / 1e6:.1f} MB; pictures may have up to {limit} MB.")


def check_pixel_count(width: int, height: int, name: str) -> None:
    """Raise `MediaTooLargeError` if a picture or frame of this size is over the limit."""
    if width * height > MAX_IMAGE_PIXELS:
        limit = MAX_IMAGE_PIXELS // 1_000_000
        raise MediaTooLargeError(
            f"{name} has {width}×{height} pixels; up to {limit} megapixels are accepted."
        )


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keep Pillow's warnings about odd files to ourselves."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    try:
        with quiet_pillow():
            yield
    except MediaError:
        raise
    except PIL.Image.DecompressionBombError as error:
        limit = MAX_IMAGE_PIXELS // 1_000_000
        raise MediaTooLargeError(f"{name} has over {limit} megapixels, the most that is accepted.") from error
    except Exception as error:
        # Decoders meet hostile bytes with whatever comes to hand: OSError, SyntaxError, ValueError,
        # struct.error, IndexError, MemoryError and more.
        raise MediaError(f"{name} is damaged or cut short and cannot be decoded.") from error


def _upright_rgb(picture: PIL.Image.Image) -> Image:
    orientation = _orientation(picture)
    rgb = flatten(picture)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    return np.array(rgb, dtype=np.uint8, order="C")


def _orientation(picture: PIL.Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:
        # A picture with a broken EXIF block is still a picture.
        return 1


def flatten(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Turn a loaded picture of any mode into mode RGB: 16 bits to 8, sRGB, transparency laid on white."""
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I"):
        return _from_16_bits(picture)
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        colours = _to_srgb(rgba.convert("RGB"), profile)
        white = PIL.Image.new("RGB", rgba.size, (255, 255, 255))
        white.paste(colours, mask=rgba.getchannel("A"))
        return white
    if picture.mode in {"1", "LA", "P", "PA"}:
        picture = picture.convert("RGB")
    return _to_srgb(picture, profile)


def _from_16_bits(picture: PIL.Image.Image) -> PIL.Image.Image:
    # Pillow's own conversion clips at 255 instead of scaling.
    levels = np.asarray(picture).astype(np.int64)
    grey = np.clip(levels >> 8, 0, 255).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey[levels == transparent] = 255
    return PIL.Image.fromarray(grey).convert("RGB")


def _to_srgb(picture: PIL.Image.Image, profile: object) -> PIL.Image.Image:
    if isinstance(profile, bytes) and profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if source.profile.xcolor_space.strip() == _PROFILE_SPACES.get(picture.mode):
                target = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(picture, source, target, outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            # Colours are a little off without the profile; no reason to refuse the picture.
            pass
    return picture.convert("RGB")
