"""Detection of Dolby Vision profiles that only Dolby's decoders can show, by the configuration record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

# The record is in a box of 32 bytes in MP4's index, or follows its name in Matroska's track header.
_RECORD = re.compile(rb"(?:\x00\x00\x00\x20dv[cvw]C|dv[cvw]C\x41\xed\x98)(.{5})", re.DOTALL)
_MAX_INDEX_BYTES = 64_000_000
_MATROSKA_HEADER_BYTES = 1_000_000


def find_incompatible_profile(path: Path) -> int | None:
    """Return the Dolby Vision profile of a file that cannot be shown without it, such as 5; else None.

    Raises:
        OSError: the file cannot be read.

    """
    for found in _RECORD.finditer(_read_header(path)):
        record = found.group(1)
        if not record[4] >> 4:  # what the picture is compatible with, such as HDR10
            return record[2] >> 1
    return None


def _read_header(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        return file.read(_MATROSKA_HEADER_BYTES) if head[:4] == b"\x1a\x45\xdf\xa3" else _read_index(file)


def _read_index(file: BinaryIO) -> bytes:
    """Return the `moov` box of an MP4 file, empty if there is none."""
    place = 0
    while True:
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            return b""
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if head[4:8] == b"moov":
            file.seek(place)
            return file.read(min(size or _MAX_INDEX_BYTES, _MAX_INDEX_BYTES))
        if size < 8:
            return b""
        place += size
