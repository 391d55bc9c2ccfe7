"""The comment and XMP blocks of GIF files, which FFmpeg does not write."""

from __future__ import annotations

import io
import mmap
from pathlib import Path

_COMMENT, _TRAILER = b"\x21\xfe", b"\x3b"
_XMP_HEAD = b"\x21\xff\x0bXMP DataXMP"
# XMP is stored without sub-blocks. This tail, read as sub-blocks, leads any reader to the end.
_XMP_TAIL = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"
_MAX_XMP = 1_000_000


def append_metadata(path: Path, comment: str, xmp: bytes) -> None:
    """Add a comment and an XMP packet before the trailer of a complete GIF file.

    Raises:
        ValueError: the file does not end in a trailer.
        OSError: the file cannot be written.

    """
    with path.open("r+b") as file:
        file.seek(-1, io.SEEK_END)
        if file.read(1) != _TRAILER:
            raise ValueError("the GIF has no trailer")
        file.seek(-1, io.SEEK_END)
        file.write(_COMMENT + _sub_blocks(comment.encode()))
        file.write(_XMP_HEAD + xmp + _XMP_TAIL + _TRAILER)


def read_xmp(path: Path) -> bytes:
    """Return the XMP packet of a GIF file; empty if it has none.

    Raises:
        OSError: the file cannot be read.

    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        begin = data.find(_XMP_HEAD) + len(_XMP_HEAD)
        end = data.find(_XMP_TAIL, begin, begin + _MAX_XMP + len(_XMP_TAIL))
        return data[begin:end] if begin >= len(_XMP_HEAD) and end >= 0 else b""


def _sub_blocks(data: bytes) -> bytes:
    chunks = [data[i : i + 255] for i in range(0, len(data), 255)]
    return b"".join(bytes([len(chunk)]) + chunk for chunk in chunks) + b"\0"
