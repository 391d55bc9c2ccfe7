"""Packets that wait to be decoded, of which only new ones are of use.

A camera's or a network's buffers must be emptied at once, or the delay grows with every frame that a busy machine
decodes late. So one thread reads all the time, and what the decoder has no time for is dropped here, where that is
harmless: any packet of a codec without references between frames, else all before a keyframe.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, Protocol, TypeVar

_MAX_WAITING = 15
"""Packets of a codec with references that may wait before those that precede a keyframe are dropped."""
_MAX_WITHOUT_KEYFRAME = 150
"""Packets after which all are dropped, and decoding goes on at the next keyframe."""


class MediaPacket(Protocol):
    """The part of PyAV's packet that the queue needs."""

    @property
    def is_keyframe(self) -> bool:
        """Whether decoding can begin at it."""


P = TypeVar("P", bound=MediaPacket)


class PacketQueue(Generic[P]):
    """A queue between a thread that reads packets and one that decodes them."""

    def __init__(self, *, intra_only: bool) -> None:
        """`intra_only`: no frame of the codec refers to another."""
        self._intra_only = intra_only
        self._packets: deque[P] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._awaits_keyframe = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._packets)

    def put(self, packet: P) -> None:
        """Add a packet, and drop those that it makes useless."""
        with self._changed:
            if self._awaits_keyframe and not packet.is_keyframe:
                self.dropped += 1
                return
            self._awaits_keyframe = False
            if self._intra_only:
                self._drop(len(self._packets))
            self._packets.append(packet)
            if len(self._packets) > _MAX_WAITING:
                self._skip_to_keyframe()
            self._changed.notify()

    def _skip_to_keyframe(self) -> None:
        newest = max((k for k, packet in enumerate(self._packets) if packet.is_keyframe), default=0)
        self._drop(newest)
        if len(self._packets) > _MAX_WITHOUT_KEYFRAME:
            self._drop(len(self._packets))
            self._awaits_keyframe = True

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._packets.popleft()
        self.dropped += count

    def end(self, error: BaseException | None = None) -> None:
        """Say that no packet follows, because of `error` or because the stream has ended."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify()

    def get(self) -> P | None:
        """Wait for the oldest packet and return it; None at the end. Raises the error with which it ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._packets or self._ended)
            if self._packets:
                return self._packets.popleft()
            if self._error is not None:
                raise self._error
            return None
