"""The duration of each picture of an animated WebP or PNG, read from its chunks without decoding."""

from __future__ import annotations

import struct
from collections.abc import Iterator

DEFAULT_DURATION = 0.1
"""Seconds for a picture that states no duration, as in browsers and FFmpeg."""

_PNG_SIGNATURE = 8


def read_frame_durations(data: bytes) -> list[float]:
    """Return the seconds of each picture in the order of the file `data`; fewer if the file breaks off."""
    if data[:4] == b"RIFF":
        frames = (body for name, body in _chunks(data, 12, riff=True) if name == b"ANMF")
        return [_webp_seconds(body) for body in frames if len(body) >= 16]
    frames = (body for name, body in _chunks(data, _PNG_SIGNATURE) if name == b"fcTL")
    return [_png_seconds(body) for body in frames if len(body) >= 26]


def _webp_seconds(frame: memoryview) -> float:
    return int.from_bytes(frame[12:15], "little") / 1000 or DEFAULT_DURATION


def _png_seconds(control: memoryview) -> float:
    parts, whole = struct.unpack_from(">HH", control, 20)
    return float(parts / (whole or 100)) or DEFAULT_DURATION


def _chunks(data: bytes, place: int, *, riff: bool = False) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the name and body of each chunk from `place` on; without `riff`, they are laid out as in PNG."""
    view = memoryview(data)
    while place + 8 <= len(data):
        first, second, begin = view[place : place + 4], view[place + 4 : place + 8], place + 8
        size = int.from_bytes(second, "little") if riff else int.from_bytes(first, "big")
        yield bytes(first if riff else second), view[begin : begin + size]
        place = begin + size + (size % 2 if riff else 4)
