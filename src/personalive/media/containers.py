"""Opening video containers that strangers made, and naming what goes wrong with them.

FFmpeg can open playlists that name other files, device nodes and network addresses. Here it gets one regular
file, the `file` protocol alone, and a handful of formats none of which refers to anything outside itself.
What FFmpeg has to say stays off stderr, which is PyAV's default; its errors are turned into ours.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av
import av.container
import av.error
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from personalive.errors import MediaError, UnsupportedMediaError
from personalive.media.frame_shape import MAX_IMAGE_PIXELS
from personalive.media.ratios import to_fraction
from personalive.media.user_paths import check_is_file

FORMATS = ("mov", "matroska", "avi", "gif")
"""FFmpeg's names of the containers that are read: MP4, MOV and M4V; MKV and WebM; AVI; GIF."""

SUPPORTED_FORMATS = (
    "MP4, MOV, M4V, WebM, MKV, AVI, GIF, an animated WebP or PNG, or a folder of numbered pictures"
)

_MAX_REORDERED = 16
# Opening may decode a frame to learn its format. What is a little too large is let through here, so that its
# size becomes known and the message can name it.
_PROBED_PIXELS = 2 * MAX_IMAGE_PIXELS
_METADATA: Any = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""Titles may be in any encoding; PyAV decodes all of them by itself from version 19 on, and is not told how."""


def open_container(path: Path) -> av.container.InputContainer:
    """Open a video file for reading.

    Raises:
        UnsupportedMediaError: not one of `FORMATS`.
        MediaError: missing, not a regular file, not readable, empty, or damaged beyond opening.

    """
    check_is_file(path)
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror or error}.") from error
    if empty:
        raise MediaError(f"{path.name} is empty.")
    options = {
        "format_whitelist": ",".join(FORMATS),
        "protocol_whitelist": "file",
        "max_pixels": str(_PROBED_PIXELS),
    }
    try:
        # The explicit protocol keeps a file called "concat:…" or "http:…" from being taken for an address.
        address = "file:" + os.fspath(path.absolute())
        container: av.container.InputContainer = av.open(address, options=options, **_METADATA)
    except av.error.ArgumentError as error:
        # What FFmpeg answers for a format outside the list.
        raise UnsupportedMediaError(
            f"{path.name} is not a video that is read here ({SUPPORTED_FORMATS})."
        ) from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(_describe_open_failure(path)) from error
    return container


def _describe_open_failure(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp":
        return f"{path.name} is cut short or damaged: its index of frames cannot be read."
    return f"{path.name} cannot be read as a video: damaged, or not one of {SUPPORTED_FORMATS}."


def read_stream_origin(path: Path, stream: VideoStream | AudioStream) -> float:
    """Return when a stream of the file begins, in seconds of the container's clock."""
    if stream.time_base is None:
        return 0.0
    # A header may not say when, and what it says may be the time of the first packet, not the earliest.
    stamps = _read_first_timestamps(path, stream.index)
    if stream.start_time is not None:
        stamps.append(stream.start_time)
    return float(min(stamps, default=0) * to_fraction(stream.time_base))


def _read_first_timestamps(path: Path, index: int) -> list[int]:
    """Read the times of a stream's first packets, those aside that an edit list cuts away."""
    container = open_container(path)
    stamps: list[int] = []
    try:
        for packet in container.demux(container.streams[index]):
            if packet.pts is not None and packet.size and not packet.is_discard:
                stamps.append(packet.pts)
            # Packets come in the order of decoding, which is a little off the order of showing.
            if len(stamps) == _MAX_REORDERED:
                break
    except (av.error.FFmpegError, OSError):
        # The real reading will meet the damage too, and report it.
        pass
    finally:
        container.close()
    return stamps
