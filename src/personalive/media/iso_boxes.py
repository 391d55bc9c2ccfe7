"""The boxes of ISO media files: MP4, MOV and their fragments."""

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


def iter_boxes(file: BinaryIO, parent: IsoBox | None = None) -> Iterator[IsoBox]:
    """Yield the file's boxes, or those in `parent`, which holds nothing else.

    A box that the file cuts off is yielded too. They end at a header that is damaged. Raises `OSError`.
    """
    start = 0 if parent is None else parent.start + _HEADER_BYTES
    while parent is None or start < parent.start + parent.length:
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
