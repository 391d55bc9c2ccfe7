"""Pass a client's packets of sound on as they arrive, in their order, and no more of them than any client sends.

The WebRTC library's buffer waits for four packets. The picture of a fast pipeline does not take that long, and the
sound has a buffer that knows when it is due. So nothing waits here: what is out of order is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aiortc import RTCRtpReceiver
from aiortc.jitterbuffer import MAX_MISORDER, JitterBuffer, JitterFrame
from aiortc.rtp import RtpPacket

MAX_PACKETS_PER_S = 200.0
"""Packets that are decoded in a second, on average. Clients send 50; with packets of 10 ms, 100."""
MAX_BURST = 100
"""Packets that are decoded at once, after a pause of the network."""


class AudioJitterBuffer(JitterBuffer):
    """A buffer that holds nothing back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(capacity=1)
        self._clock = clock
        self._newest: int | None = None
        self._allowance = float(MAX_BURST)
        self._seen_at = clock()

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Return the packet's frame, or nothing where it is late or one too many."""
        now = self._clock()
        self._allowance = min(self._allowance + (now - self._seen_at) * MAX_PACKETS_PER_S, MAX_BURST)
        self._seen_at = now
        if self._newest is not None:
            late = (self._newest - packet.sequence_number) % 2**16
            if late < MAX_MISORDER:
                return False, None
        if self._allowance < 1:
            return False, None
        self._allowance -= 1
        self._newest = packet.sequence_number
        data: Any = packet
        return False, JitterFrame(data._data, packet.timestamp) if data._data else None


def use_audio_jitter_buffer(receiver: RTCRtpReceiver) -> None:
    """Use `AudioJitterBuffer` for a receiver of sound. Call it before the first packet arrives."""
    inner: Any = receiver
    inner._RTCRtpReceiver__jitter_buffer = AudioJitterBuffer()
