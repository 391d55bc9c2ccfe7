"""Accept one of the RTP streams that a client sends on one section, as broadcasters do with simulcast."""

from __future__ import annotations

import time
from typing import Any

from aiortc import RTCRtpReceiver
from aiortc.rtp import RtpPacket

SILENCE_TIMEOUT_S = 1.0
"""Seconds without packets after which another stream replaces the accepted one."""


def accept_one_ssrc(receiver: RTCRtpReceiver) -> None:
    """Pass only the first stream to `receiver`, until it is silent for `SILENCE_TIMEOUT_S`.

    The answer to a simulcast offer names no layers, which asks for one; OBS sends all of them nevertheless, and the
    receiver would mix packets of different layers.
    """
    inner: Any = receiver
    take = inner._handle_rtp_packet
    source: int | None = None
    heard_at = 0.0

    async def take_one(packet: RtpPacket, arrival_time_ms: int) -> None:
        nonlocal source, heard_at
        now = time.monotonic()
        if source is None or (packet.ssrc != source and now - heard_at > SILENCE_TIMEOUT_S):
            source = packet.ssrc
        if packet.ssrc == source:
            heard_at = now
            await take(packet, arrival_time_ms=arrival_time_ms)

    inner._handle_rtp_packet = take_one
