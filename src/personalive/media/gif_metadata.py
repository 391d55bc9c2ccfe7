"""The comment and XMP blocks of GIF files, which FFmpeg does not write."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

_EXTENSION, _IMAGE, _TRAILER = b"\x21", b"\x2c", b"\x3b"
_COMMENT, _APPLICATION = b"\xfe", b"\xff"
_XMP_APPLICATION = b"XMP DataXMP"
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
        file.write(_EXTENSION + _COMMENT + _sub_blocks(comment.encode()))
        file.write(_EXTENSION + _APPLICATION + bytes([len(_XMP_APPLICATION)]) + _XMP_APPLICATION)
        file.write(xmp + _XMP_TAIL + _TRAILER)


def read_xmp(path: Path) -> bytes:
    """Return the XMP packet of a GIF file; empty if it has none or is damaged before it.

    Raises:
        OSError: the file cannot be read.

    """
    with path.open("rb") as file:
        header = file.read(13)
        if len(header) < 13 or header[:3] != b"GIF":
            return b""
        _skip_palette(file, header[10])
        while True:
            block = file.read(1)
            if block == _IMAGE:
                descriptor = file.read(9)
                _skip_palette(file, descriptor[8] if len(descriptor) == 9 else 0)
                file.read(1)
                _skip_sub_blocks(file)
            elif block == _EXTENSION:
                packet = _extension_xmp(file)
                if packet:
                    return packet
            else:
                return b""


def _extension_xmp(file: BinaryIO) -> bytes:
    label = file.read(1)
    if label == _APPLICATION:
        size = (file.read(1) or b"\0")[0]
        if file.read(size) == _XMP_APPLICATION:
            rest = file.read(_MAX_XMP + len(_XMP_TAIL))
            end = rest.find(_XMP_TAIL)
            return rest[:end] if end >= 0 else b""
    _skip_sub_blocks(file)
    return b""


def _skip_palette(file: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        file.seek(3 << ((flags & 7) + 1), io.SEEK_CUR)


def _skip_sub_blocks(file: BinaryIO) -> None:
    while size := (file.read(1) or b"\0")[0]:
        file.seek(size, io.SEEK_CUR)


def _sub_blocks(data: bytes) -> bytes:
    chunks = [data[i : i + 255] for i in range(0, len(data), 255)]
    return b"".join(bytes([len(chunk)]) + chunk for chunk in chunks) + b"\0"
