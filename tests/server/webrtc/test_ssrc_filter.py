"""Packets of several layers, put to a receiver of aiortc's."""

from __future__ import annotations

import asyncio

import pytest
from aiortc import RTCPeerConnection
from aiortc.rtp import RtpPacket

from personalive.server.webrtc import ssrc_filter


async def heard(receiver: object, *sources: int) -> set[int]:
    """Which RTP streams have reached the receiver so far, with a packet of each of these now."""
    for source in sources:
        packet = RtpPacket(payload_type=96, ssrc=source)
        await receiver._handle_rtp_packet(packet, arrival_time_ms=0)  # type: ignore[attr-defined]
    return {found.source for found in receiver.getSynchronizationSources()}  # type: ignore[attr-defined]


def test_the_first_layer_is_taken_until_it_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act() -> None:
        connection = RTCPeerConnection()
        receiver = connection.addTransceiver("video").receiver
        assert await heard(receiver, 1, 2, 3) == {1, 2, 3}  # as aiortc does it
        receiver = connection.addTransceiver("video").receiver
        ssrc_filter.accept_one_ssrc(receiver)
        assert await heard(receiver, 5, 6, 7, 6, 5) == {5}
        monkeypatch.setattr(ssrc_filter, "SILENCE_TIMEOUT_S", -1.0)
        assert await heard(receiver, 6) == {5, 6}
        await connection.close()

    asyncio.run(act())
