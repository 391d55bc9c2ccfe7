"""Decoding of HEIF and AVIF pictures in a separate process.

The cost of such a file is not in its header: a picture of a few pixels may refer to thousands of large tiles. Also,
the decoders are those of video, and crafted files have crashed such decoders before. A separate process can be
killed after a time limit, and its memory is freed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image

from personalive.errors import MediaError, MediaTooLargeError, UnsupportedMediaError
from personalive.media.frame_shape import MAX_IMAGE_PIXELS

MAX_DECODED_PIXELS = 100_000_000
"""The most pixels of a HEIF or AVIF picture; one over `MAX_IMAGE_PIXELS` is reduced."""
TIMEOUT_SECONDS = 20.0
"""Wall-clock time a picture may take; a large one takes two or three."""
_PROGRAM = Path(__file__).with_name("decoder_process.py")
_INSTALL = {"HEIF": "pip install pi-heif", "AVIF": "pip install --force-reinstall --only-binary=:all: pillow"}


def decode_in_subprocess(
    data: bytes, kind: Literal["HEIF", "AVIF"], name: str
) -> tuple[PIL.Image.Image, int]:
    """Decode a picture's bytes; `name` is what messages call it.

    Returns the picture as stored, in mode L, LA, RGB or RGBA, with its `icc_profile` in `info`, and its EXIF
    orientation, 1 to 8.

    Raises:
        MediaTooLargeError: over `MAX_DECODED_PIXELS`; nothing has been decoded.
        UnsupportedMediaError: the decoder is not installed.
        MediaError: damaged, or not decoded within `TIMEOUT_SECONDS`.

    """
    facts, rest = _run(data, kind, name)
    problem = facts.get("problem")
    if problem == "too large":
        raise MediaTooLargeError(
            f"{name} has {facts['width']}×{facts['height']} pixels: "
            f"up to {MAX_DECODED_PIXELS // 1_000_000} megapixels are accepted of a {kind} picture."
        )
    if problem == "decoder":
        raise UnsupportedMediaError(
            f"{name} is a {kind} picture, and its decoder is missing here ({facts['detail']}): {_INSTALL[kind]}"
        )
    try:
        profile, pixels = rest[: facts["profile"]], rest[facts["profile"] :]
        mode, size = facts["mode"], tuple(facts["size"])
        picture = PIL.Image.frombuffer(mode, size, np.frombuffer(pixels, np.uint8), "raw", mode, 0, 1)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged_error(name) from error
    picture.info["icc_profile"] = bytes(profile)
    return picture, int(facts["orientation"])


def _run(data: bytes, kind: str, name: str) -> tuple[dict[str, Any], memoryview]:
    # The process can import what this one can.
    path = os.pathsep.join(entry for entry in sys.path if entry)
    # The C library reserves address space for every thread, which counts as memory.
    variables = {**os.environ, "PYTHONPATH": path, "MALLOC_ARENA_MAX": "2"}
    command = [sys.executable, "-P", str(_PROGRAM), kind, str(MAX_DECODED_PIXELS), str(MAX_IMAGE_PIXELS)]
    try:
        done = subprocess.run(
            command,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=variables,
            timeout=TIMEOUT_SECONDS,
            check=False,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except subprocess.TimeoutExpired as error:
        raise MediaError(
            f"{name} takes over {TIMEOUT_SECONDS:.0f} s to decode: save it as a JPEG or PNG first."
        ) from error
    except OSError as error:
        raise MediaError(f"{name} cannot be decoded: no process can be started ({error}).") from error
    end = done.stdout.find(b"\n")
    if done.returncode != 0 or end < 0:
        raise _damaged_error(name)
    return json.loads(done.stdout[:end]), memoryview(done.stdout)[end + 1 :]


def _damaged_error(name: str) -> MediaError:
    return MediaError(f"{name} is damaged or cut short and cannot be decoded.")
