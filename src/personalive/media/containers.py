"""Opening of untrusted video containers, with errors that say what is wrong with them.

FFmpeg can open playlists that name other files, device nodes and network addresses. Here it may open one regular
file, use only the `file` protocol, and read a few formats none of which refers to anything outside itself.
FFmpeg's log does not reach stderr, which is PyAV's default; its errors become `MediaError`.
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
from personalive.media.user_paths import check_is_file, translate_read_errors

FORMATS = ("mov", "matroska", "avi", "gif")
"""FFmpeg's names of the supported containers: MP4, MOV and M4V; MKV and WebM; AVI; GIF."""

SUPPORTED_FORMATS = (
    "MP4, MOV, M4V, WebM, MKV, AVI, GIF, an animated WebP or PNG, or a folder of numbered pictures"
)

_MAX_REORDERED = 16
# Opening may decode a frame to learn its format. Frames a little too large are allowed here, so that their size
# becomes known and the message can name it.
_PROBED_PIXELS = 2 * MAX_IMAGE_PIXELS
_METADATA: Any = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
"""Titles may be in any encoding; from version 19 on PyAV decodes them all and takes no such option."""


def open_container(path: Path) -> av.container.InputContainer:
    """Open a video file for reading.

    Raises:
        UnsupportedMediaError: the file is not one of `FORMATS`.
        MediaError: the file is missing, not regular, not readable, empty, or too damaged to be opened.

    """
    check_is_file(path)
    with translate_read_errors(path), path.open("rb") as file:
        empty = not file.read(1)
    if empty:
        raise MediaError(f"{path.name} is empty.")
    options = {
        "format_whitelist": ",".join(FORMATS),
        "protocol_whitelist": "file",
        "max_pixels": str(_PROBED_PIXELS),
    }
    try:
        # With the explicit protocol, a file called "concat:…" or "http:…" is not taken for an address.
        address = "file:" + os.fspath(path.absolute())
        container: av.container.InputContainer = av.open(address, options=options, **_METADATA)
    except av.error.ArgumentError as error:
        # FFmpeg's answer for a format outside the list.
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
    """Return the time at which a stream of the file begins, in seconds of the container's clock."""
    if stream.time_base is None:
        return 0.0
    # A header may omit it, or state the time of the first packet instead of the earliest.
    stamps = _read_first_timestamps(path, stream.index)
    if stream.start_time is not None:
        stamps.append(stream.start_time)
    return float(min(stamps, default=0) * to_fraction(stream.time_base))


def _read_first_timestamps(path: Path, index: int) -> list[int]:
    """Read the times of a stream's first packets, without those that an edit list cuts away."""
    container = open_container(path)
    stamps: list[int] = []
    try:
        for packet in container.demux(container.streams[index]):
            if packet.pts is not None and packet.size and not packet.is_discard:
                stamps.append(packet.pts)
            # Packets come in decoding order, which differs a little from presentation order.
            if len(stamps) == _MAX_REORDERED:
                break
    except (av.error.FFmpegError, OSError):
        # Decoding will meet the damage too, and report it.
        pass
    finally:
        container.close()
    return stamps
