"""Detection of Dolby Vision profiles that only Dolby's decoders can show, by the configuration record."""

from __future__ import annotations

import re
from pathlib import Path

from personalive.media.iso_boxes import iter_boxes

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
    """Return what may hold the record: Matroska's track header, or the `moov` box of an MP4 file."""
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return file.read(_MATROSKA_HEADER_BYTES)
        for box in iter_boxes(file):
            if box.kind == b"moov":
                file.seek(box.start)
                return file.read(min(box.length or _MAX_INDEX_BYTES, _MAX_INDEX_BYTES))
        return b""
