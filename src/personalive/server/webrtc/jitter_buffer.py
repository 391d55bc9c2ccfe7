"""Order a video's packets without waiting for those that will not arrive.

The WebRTC library's buffer waits for a missing packet until 512 others have arrived, which is many seconds of a
small picture. So after a pause of the network, or of this process, the picture would stand still for as long again.
Lost packets are requested once and should arrive within a round trip; after that the newest frame is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiortc import RTCPeerConnection
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtp import RtpPacket

MAX_WAIT_S = 0.3
"""Seconds to wait for a missing packet."""
_LONG_PAUSE_TICKS = 90_000
"""Ticks of a video's clock in a second: senders do not keep packets that are older, so they are not sent again."""
_CAPACITY = 512
_JITTER_BUFFER_ATTRIBUTE = "_RTCRtpReceiver__jitter_buffer"


class LowLatencyJitterBuffer(JitterBuffer):
    """A buffer that skips to the newest frame if packets are missing for `MAX_WAIT_S`, or if they are old."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(capacity=_CAPACITY, is_video=True)
        self._clock = clock
        self._newest: RtpPacket | None = None
        self._gap_since: float | None = None
        self._given_up: int | None = None  # the timestamp of a frame that can no longer be complete

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Add a packet; return whether to request a key frame, and the next frame if it is complete."""
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
        """Return whether a packet before the newest one is missing."""
        assert self._origin is not None
        return any(
            self._packets[(self._origin + offset) % _CAPACITY] is None
            for offset in range(min(_sequence_distance(newest, self._origin), _CAPACITY))
        )

    def _is_after_pause(self, newest: RtpPacket) -> bool:
        """Return whether there is a long pause between the missing packets and the newest one."""
        assert self._origin is not None
        packets = (self._packets[(self._origin + offset) % _CAPACITY] for offset in range(_CAPACITY))
        before = next((packet for packet in packets if packet is not None), newest)
        return (newest.timestamp - before.timestamp) % 2**32 in range(_LONG_PAUSE_TICKS, 2**31)

    def _skip_to_newest(self, newest: RtpPacket) -> None:
        """Drop all packets before the newest frame, and that frame too if its beginning is missing."""
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
    """Use `LowLatencyJitterBuffer` for the connection's video. Call it before the first packet arrives."""
    for receiver in connection.getReceivers():
        held: Any = getattr(receiver, _JITTER_BUFFER_ATTRIBUTE, None)
        if isinstance(held, JitterBuffer) and held._is_video:
            setattr(receiver, _JITTER_BUFFER_ATTRIBUTE, LowLatencyJitterBuffer())


def _sequence_distance(one: int, other: int) -> int:
    """Return by how many packets `one` is later than `other`; negative if it is earlier."""
    return (one - other + 2**15) % 2**16 - 2**15
