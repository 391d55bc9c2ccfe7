"""The program of `decode_in_subprocess`: decodes the HEIF or AVIF picture on its standard input.

It is run by its path and imports nothing of this package, so that it starts quickly. It writes one line of JSON,
then the colour profile and the pixels; or one line with what is wrong.
"""

from __future__ import annotations

import importlib
import io
import json
import math
import sys
from typing import Any

import PIL.Image

_MEMORY_LIMIT = 3 << 30
_THREADS = 4
_ORIENTATION = 0x0112
_PLAIN_MODES = {"L", "LA", "RGB", "RGBA"}


def main() -> None:
    """Decode the picture on standard input; the arguments give its kind and the limits in pixels."""
    kind, most, target = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    _limit_memory()
    PIL.Image.MAX_IMAGE_PIXELS = None  # bounded by `most`
    try:
        picture = _open(sys.stdin.buffer.read(), kind)
    except ImportError as error:
        return _write_header(problem="decoder", detail=str(error))
    width, height = picture.size
    if width * height > most:
        return _write_header(problem="too large", width=width, height=height)
    picture.load()
    profile = picture.info.get("icc_profile") or b""
    orientation = _orientation(picture)
    plain = picture if picture.mode in _PLAIN_MODES else picture.convert("RGBA")
    if width * height > target:
        plain = plain.reduce(math.ceil(math.sqrt(width * height / target)))
    _write_header(
        mode=plain.mode,
        size=plain.size,
        stored=[width, height],
        orientation=orientation,
        profile=len(profile),
    )
    sys.stdout.buffer.write(profile)
    sys.stdout.buffer.write(plain.tobytes())
    sys.stdout.buffer.flush()
    return None


def _open(data: bytes, kind: str) -> PIL.Image.Image:
    """Open the picture. Raises `ImportError` where the decoder is not installed."""
    if kind == "AVIF":
        from PIL import AvifImagePlugin, features

        if not features.check("avif"):
            raise ImportError("Pillow was built without AVIF")
        AvifImagePlugin.DEFAULT_MAX_THREADS = _THREADS
        return AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    pi_heif: Any = importlib.import_module("pi_heif")
    pi_heif.options.DECODE_THREADS = _THREADS
    pi_heif.register_heif_opener()
    return PIL.Image.open(io.BytesIO(data), formats=("HEIF",))


def _orientation(picture: PIL.Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:
        # A picture with a broken EXIF block is still a picture.
        return 1


if sys.platform == "win32":

    def _limit_memory() -> None:
        """Do nothing: Windows has no such limit."""

else:
    import resource

    def _limit_memory() -> None:
        """Limit the memory of this process to what a picture within the limits needs."""
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        allowed = _MEMORY_LIMIT if most == resource.RLIM_INFINITY else min(_MEMORY_LIMIT, most)
        try:
            resource.setrlimit(resource.RLIMIT_AS, (allowed, most))
        except (OSError, ValueError):  # macOS refuses limits below what is mapped already
            return


def _write_header(**facts: object) -> None:
    sys.stdout.buffer.write(json.dumps(facts).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
