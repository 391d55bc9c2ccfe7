"""The top-level boxes of ISO media files: MP4, MOV and their fragments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_HEADER_BYTES = 8


@dataclass(frozen=True, slots=True)
class IsoBox:
    """A box that begins at byte `start` of its file; `length` counts its header, and is 0 up to the file's end."""

    kind: bytes
    start: int
    length: int


def iter_boxes(file: BinaryIO) -> Iterator[IsoBox]:
    """Yield the boxes, also one that the file cuts off; end at a header that is damaged. Raises `OSError`."""
    start = 0
    while True:
        file.seek(start)
        head = file.read(2 * _HEADER_BYTES)
        if len(head) < _HEADER_BYTES:
            return
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a large box has its length behind its kind
            length = int.from_bytes(head[8:], "big")
        yield IsoBox(head[4:8], start, length)
        if length < _HEADER_BYTES:
            return
        start += length
