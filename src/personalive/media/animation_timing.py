"""The duration of each picture of an animated WebP or PNG, read from its chunks without decoding."""

from __future__ import annotations

import struct
from collections.abc import Iterator

DEFAULT_DURATION = 0.1
"""Seconds for a picture that states no duration, as in browsers and FFmpeg."""

_WEBP_FRAME = b"ANMF"
_PNG_FRAME, _PNG_SIGNATURE = b"fcTL", 8


def read_frame_durations(data: bytes) -> list[float]:
    """Return the seconds of each picture in the order of the file `data`; fewer if the file breaks off."""
    if data[:4] == b"RIFF":
        return [
            _webp_seconds(body)
            for name, body in _riff_chunks(data)
            if name == _WEBP_FRAME and len(body) >= 16
        ]
    return [_png_seconds(body) for name, body in _png_chunks(data) if name == _PNG_FRAME and len(body) >= 26]


def _webp_seconds(frame: memoryview) -> float:
    return int.from_bytes(frame[12:15], "little") / 1000 or DEFAULT_DURATION


def _png_seconds(control: memoryview) -> float:
    parts, whole = struct.unpack_from(">HH", control, 20)
    return float(parts / (whole or 100)) or DEFAULT_DURATION


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, place = memoryview(data), 12
    while place + 8 <= len(data):
        size = int.from_bytes(view[place + 4 : place + 8], "little")
        yield bytes(view[place : place + 4]), view[place + 8 : place + 8 + size]
        place += 8 + size + size % 2


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, place = memoryview(data), _PNG_SIGNATURE
    while place + 8 <= len(data):
        size = int.from_bytes(view[place : place + 4], "big")
        yield bytes(view[place + 4 : place + 8]), view[place + 8 : place + 8 + size]
        place += 12 + size
