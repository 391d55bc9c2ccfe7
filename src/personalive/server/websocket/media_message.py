"""Binary messages of the WebSocket: a header of twelve bytes, and an encoded frame, sound or nothing.

    kind, flags, two zero bytes, timestamp in microseconds (64 bits, big-endian), payload

`docs/reference/websocket.md` describes them for other clients.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from personalive.errors import InputError

_HEADER = struct.Struct("!BBHQ")
HEADER_BYTES = _HEADER.size
MAX_TIMESTAMP = 2**53 - 1
"""The largest timestamp, which is the largest integer that JavaScript's numbers have exactly."""
_KEYFRAME = 0x01


class MediaKind(IntEnum):
    """What a binary message carries."""

    VIDEO = 1
    """An encoded frame of video. Its timestamp increases from frame to frame."""
    AUDIO = 2
    """A packet of Opus. Its timestamp, that of its first sample, is on the clock of the video and increases too."""
    ACKNOWLEDGEMENT = 3
    """The video frame with that timestamp, and those before it, have been shown or used."""
    KEYFRAME_REQUEST = 4
    """The next video frame must be a keyframe."""


@dataclass(frozen=True, slots=True)
class MediaMessage:
    """A binary message. `timestamp` is in microseconds, on the clock of whoever sends it."""

    kind: MediaKind
    timestamp: int = 0
    payload: bytes = b""
    is_keyframe: bool = False

    def pack(self) -> bytes:
        """Return the message's bytes."""
        flags = _KEYFRAME if self.is_keyframe else 0
        return _HEADER.pack(self.kind, flags, 0, self.timestamp) + self.payload


def parse_media_message(data: bytes) -> MediaMessage:
    """Parse a binary message. Raises `InputError` for one that is truncated or has an invalid header."""
    if len(data) < HEADER_BYTES:
        raise InputError(f"A binary message has {HEADER_BYTES} bytes or more, not {len(data)}.")
    number, flags, reserved, timestamp = _HEADER.unpack_from(data)
    try:
        kind = MediaKind(number)
    except ValueError:
        raise InputError(f"A binary message cannot be of the kind {number}: the kinds are 1 to 4.") from None
    if flags & ~_KEYFRAME or reserved:
        raise InputError("The header of a binary message has unknown flags.")
    if timestamp > MAX_TIMESTAMP:
        raise InputError(f"A timestamp may be {MAX_TIMESTAMP} at most.")
    payload = data[HEADER_BYTES:]
    if kind is MediaKind.VIDEO and not payload:
        raise InputError("A video message has no frame.")
    if kind is MediaKind.AUDIO and not payload:
        raise InputError("A sound message has no packet.")
    if kind in {MediaKind.ACKNOWLEDGEMENT, MediaKind.KEYFRAME_REQUEST} and payload:
        raise InputError("An acknowledgement or a keyframe request has a header only.")
    return MediaMessage(kind, timestamp, payload, bool(flags & _KEYFRAME))
