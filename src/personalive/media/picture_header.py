"""Parsing of picture headers: type and size, and for a JPEG the cost of decoding it.

No decoder is used, since some allocate all the pixels that a file of a few bytes claims to have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

ImageType: TypeAlias = Literal["JPEG", "PNG", "WEBP", "HEIF", "AVIF"]

HEAD_BYTES = 64
"""Number of first bytes of a file that identify its type."""

_SEQUENCE_BRANDS = {b"hevc", b"hevx", b"hevm", b"hevs", b"msf1", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"mif1", b"miaf"} | (_SEQUENCE_BRANDS - {b"avis"})
_AVIF_BRANDS = {b"avif", b"avis"}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_ARITHMETIC = {*range(0xC9, 0xD0)}
# Within a scan, 0xFF is a literal before 0x00, and a restart marker before 0xD0 to 0xD7.
_MARKER_IN_SCAN = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")


@dataclass(frozen=True, slots=True)
class JpegInfo:
    """The coding of a JPEG: `width` and `height` in pixels, `scans` of the picture, `samples` over all components.

    `needs_full_buffer`: the decoder must hold every coefficient until the last scan. `arithmetic`: it uses
    arithmetic coding, which is slow to decode.
    """

    width: int
    height: int
    samples: int
    scans: int
    needs_full_buffer: bool
    arithmetic: bool


def detect_image_type(head: bytes) -> ImageType | None:
    """Return the picture type that a file's first bytes, `HEAD_BYTES` or all of them, indicate, or None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return _detect_heif_type(head) if head[4:8] == b"ftyp" else None


def _detect_heif_type(head: bytes) -> ImageType | None:
    # A video may list the brands of a picture among others, but its own brand comes first.
    brand = head[8:12]
    if brand in _AVIF_BRANDS:
        return "AVIF"
    if brand not in _HEIF_BRANDS:
        return None
    end = min(int.from_bytes(head[:4], "big"), len(head))
    compatible = {head[at : at + 4] for at in range(16, end - 3, 4)}
    general = brand in {b"mif1", b"msf1", b"miaf"}
    return "AVIF" if general and compatible & _AVIF_BRANDS else "HEIF"


def is_sequence(head: bytes) -> bool:
    """Return whether a HEIF or AVIF file with those first bytes is an animation, which is a video inside."""
    return head[4:8] == b"ftyp" and head[8:12] in _SEQUENCE_BRANDS


def read_stored_size(data: bytes, kind: ImageType) -> tuple[int, int] | None:
    """Return the (width, height) that a JPEG, PNG or WebP claims, or None where the header is invalid.

    The size of other types is not known without a decoder.
    """
    if kind == "JPEG":
        facts = read_jpeg_info(data)
        return None if facts is None else (facts.width, facts.height)
    if kind == "PNG":
        return _png_size(data)
    return _webp_size(data) if kind == "WEBP" else None


def _png_size(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return None


def read_jpeg_info(data: bytes) -> JpegInfo | None:
    """Read the markers of a JPEG up to its end; None where no frame is found in it."""
    frame: tuple[int, int, int] | None = None
    marker_of_frame, components, scans, whole, at = 0, 0, 0, True, 2
    while (found := _find_next_marker(data, at)) is not None:
        marker, at = found
        if marker == _END_OF_IMAGE:
            break
        length = int.from_bytes(data[at : at + 2], "big")
        body = data[at + 2 : at + length]
        if marker in _START_OF_FRAME and frame is None and len(body) >= 6:
            marker_of_frame, components = marker, body[5]
            width, height = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
            frame = width, height, _count_samples(body, width, height)
        at += max(length, 2)
        if marker == _START_OF_SCAN:
            scans += 1
            if scans == 1 and body:
                # A first scan of all components of a sequential JPEG is its only one, and decoded as it comes.
                whole = marker_of_frame in _PROGRESSIVE or body[0] != components
            end = _MARKER_IN_SCAN.search(data, at)
            at = end.start() if end else len(data)
    if frame is None:
        return None
    return JpegInfo(*frame, scans, whole or scans > 1, marker_of_frame in _ARITHMETIC)


def _find_next_marker(data: bytes, at: int) -> tuple[int, int] | None:
    """Return the next marker that has a body or ends the picture, and the position after it."""
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in {0x00, 0x01} or 0xD0 <= marker <= 0xD8:
            at += 2
        else:
            return marker, at + 2
    return None


def _count_samples(frame: bytes, width: int, height: int) -> int:
    """Return how many samples all components of a frame have, by its header."""
    factors = [(value >> 4, value & 15) for value in frame[7 : 6 + 3 * frame[5] : 3]]
    across, down = max((x for x, _ in factors), default=0), max((y for _, y in factors), default=0)
    if not across or not down:
        return width * height
    return sum(width * height * x * y // (across * down) for x, y in factors)
