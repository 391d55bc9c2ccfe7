"""The clock of sender reports, on stand-ins for the WebRTC library's receiver and sender, which need a network."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import pytest
from aiortc.rtp import RtcpByePacket, RtcpSenderInfo, RtcpSrPacket, RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from personalive.server.webrtc.sender_reports import ReceivedClock, align_reports

NTP_EPOCH_S = 2_208_988_800
SSRC, OTHER = 7, 8


def report(ntp_s: float, timestamp: int, *, ssrc: int = SSRC, packets: int = 1) -> RtcpSrPacket:
    told = RtcpSenderInfo(round(ntp_s * 2**32), timestamp % 2**32, packets, 0)
    return RtcpSrPacket(ssrc=ssrc, sender_info=told)


def received(origin: int, reports: list[RtcpSrPacket], at_s: float, rate: int = 48_000) -> float | None:
    """When a frame was captured that came `at_s` after the first one, by these reports."""

    async def take(*given: object, **named: object) -> None:
        del given, named

    receiver: Any = SimpleNamespace(
        _handle_rtp_packet=take,
        _handle_rtcp_packet=take,
        _RTCRtpReceiver__codecs={111: SimpleNamespace(clockRate=rate)},
        _RTCRtpReceiver__rtx_ssrc={},
        _RTCRtpReceiver__timestamp_mapper=SimpleNamespace(_origin=origin),
    )

    async def act() -> float | None:
        clock = ReceivedClock(receiver)
        packet = RtpPacket(payload_type=111, timestamp=origin % 2**32)
        packet.ssrc = SSRC
        await receiver._handle_rtp_packet(packet, arrival_time_ms=0)
        for one in reports:
            await receiver._handle_rtcp_packet(one)
        frame = av.AudioFrame(format="s16", layout="stereo", samples=960)
        frame.pts, frame.time_base = round(at_s * rate), Fraction(1, rate)
        return clock.get_source_time(frame)

    return asyncio.run(act())


@given(st.integers(0, 2**32 - 1), st.floats(0, 7000), st.floats(-30, 30), st.floats(1e9, 4e9))
def test_a_frame_is_placed_by_the_reports_before_and_after_it(
    origin: int, at_s: float, apart_s: float, ntp_s: float
) -> None:
    """Also where RTP timestamps, which have 32 bits, wrap."""
    ticks = round(at_s * 48_000) + round(apart_s * 48_000)
    found = received(origin, [report(ntp_s, origin + ticks)], at_s)
    assert found == pytest.approx(ntp_s - round(apart_s * 48_000) / 48_000, abs=1e-4)


def test_one_report_that_is_off_does_not_count() -> None:
    reports = [report(1000.0 + index, 48_000 * index) for index in range(5)]
    reports.insert(2, report(1009.0, 48_000 * 2))
    assert received(0, reports, 2.0) == pytest.approx(1002.0, abs=1e-6)


def test_reports_of_other_streams_and_empty_ones_are_left_out() -> None:
    assert received(0, [], 1.0) is None
    assert received(0, [report(1000.0, 0, ssrc=OTHER)], 1.0) is None
    assert received(0, [report(0.0, 0), report(1000.0, 0, packets=0)], 1.0) is None


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**34))
def test_reports_say_when_contents_were_due(origin: int, first: int) -> None:
    sent: list[Any] = []
    frames = iter([first, first + 960, first + 1920])

    async def encode(codec: object) -> SimpleNamespace:
        del codec
        return SimpleNamespace(timestamp=next(frames))

    async def send(packets: list[Any]) -> None:
        sent.extend(packets)

    sender: Any = SimpleNamespace(
        _next_encoded_frame=encode, _send_rtcp=send, _RTCRtpSender__rtp_timestamp=0, _RTCRtpSender__lsr=None
    )

    async def act() -> None:
        align_reports(sender, lambda timestamp: 500 + timestamp / 48_000)
        for timestamp in (first, first + 960):
            await sender._send_rtcp([report(1.0, sender._RTCRtpSender__rtp_timestamp)])
            await sender._next_encoded_frame(None)
            sender._RTCRtpSender__rtp_timestamp = (origin + timestamp) % 2**32
        assert sent == []  # it is not known yet which frame has which timestamp
        await sender._next_encoded_frame(None)
        # The third frame is not sent yet: the report is of the second one.
        await sender._send_rtcp([report(1.0, origin + first + 960)])
        await sender._send_rtcp([RtcpByePacket(sources=[SSRC])])

    asyncio.run(act())
    told = sent[0].sender_info.ntp_timestamp
    assert told / 2**32 - NTP_EPOCH_S == pytest.approx(500 + (first + 960) / 48_000, abs=1e-5)
    assert sender._RTCRtpSender__lsr == told >> 16 & 0xFFFFFFFF
    assert isinstance(sent[1], RtcpByePacket)
