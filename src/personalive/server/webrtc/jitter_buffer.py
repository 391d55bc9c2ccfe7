"""Putting a video's packets into order without waiting for those that will not come.

The WebRTC library's buffer waits for a missing packet until 512 others are there, which is many seconds of a small
picture. So after the network, or this process, stood still for a while the picture would stand still for as long
again. What is lost is asked for once, and should be there within a round trip; after that the newest frame wins.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiortc import RTCPeerConnection
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtp import RtpPacket

MAX_WAIT_S = 0.3
"""Seconds that a missing packet is waited for."""
_LONG_PAUSE_TICKS = 90_000
"""Ticks of a video's clock, a second of it: what is missing for so long was never kept to be sent again."""
_CAPACITY = 512
_JITTER_BUFFER_ATTRIBUTE = "_RTCRtpReceiver__jitter_buffer"


class LowLatencyJitterBuffer(JitterBuffer):
    """Gives up what is missing after `MAX_WAIT_S`, or at once where it is old; goes on with the newest frame."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(capacity=_CAPACITY, is_video=True)
        self._clock = clock
        self._newest: RtpPacket | None = None
        self._gap_since: float | None = None
        self._given_up: int | None = None  # the timestamp of a frame that cannot be whole any more

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Take a packet; whether a key frame is to be asked for, and the next frame if it is complete."""
        if packet.timestamp == self._given_up:
            self._restart_after(packet)
            return False, None
        self._given_up = None
        wants_key, frame = super().add(packet)
        newest = self._newest
        if (
            newest is None
            or wants_key
            or _sequence_distance(packet.sequence_number, newest.sequence_number) > 0
        ):
            self._newest = newest = packet
        if frame is not None or not self._has_gap(newest.sequence_number):
            self._gap_since = None
            return wants_key, frame
        now = self._clock()
        if self._gap_since is None:
            self._gap_since = now
        if now - self._gap_since >= MAX_WAIT_S or self._is_after_pause(newest):
            self._skip_to_newest(newest)
            return True, None
        return wants_key, None

    def _has_gap(self, newest: int) -> bool:
        """Whether there is a gap before the newest packet."""
        assert self._origin is not None
        return any(
            self._packets[(self._origin + offset) % _CAPACITY] is None
            for offset in range(min(_sequence_distance(newest, self._origin), _CAPACITY))
        )

    def _is_after_pause(self, newest: RtpPacket) -> bool:
        """Whether what is missing comes before a long pause."""
        assert self._origin is not None
        packets = (self._packets[(self._origin + offset) % _CAPACITY] for offset in range(_CAPACITY))
        before = next((packet for packet in packets if packet is not None), newest)
        return (newest.timestamp - before.timestamp) % 2**32 in range(_LONG_PAUSE_TICKS, 2**31)

    def _skip_to_newest(self, newest: RtpPacket) -> None:
        """Forget all that comes before the newest frame, and that one too where its beginning is missing."""
        assert self._origin is not None
        self._gap_since = None
        begin = newest
        while (before := self._packets[(begin.sequence_number - 1) % _CAPACITY]) is not None:
            if before.timestamp != newest.timestamp:
                self.remove(_sequence_distance(begin.sequence_number, self._origin))
                return
            begin = before
        self._given_up = newest.timestamp
        self._restart_after(newest)

    def _restart_after(self, packet: RtpPacket) -> None:
        self.remove(_CAPACITY)
        self._origin = (packet.sequence_number + 1) % 2**16


def use_low_latency_jitter_buffer(connection: RTCPeerConnection) -> None:
    """Let the connection's video go through `LowLatencyJitterBuffer`. Call it before the first packet comes."""
    for receiver in connection.getReceivers():
        held: Any = getattr(receiver, _JITTER_BUFFER_ATTRIBUTE, None)
        if isinstance(held, JitterBuffer) and held._is_video:
            setattr(receiver, _JITTER_BUFFER_ATTRIBUTE, LowLatencyJitterBuffer())


def _sequence_distance(one: int, other: int) -> int:
    """By how many packets `one` is later than `other`; negative where it is earlier."""
    return (one - other + 2**15) % 2**16 - 2**15
