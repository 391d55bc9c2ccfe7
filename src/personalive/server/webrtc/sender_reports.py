"""RTCP sender reports, by which receivers play sound and picture together.

A report says at which time of the sender's wall clock a stream's RTP timestamp was. `ReceivedClock` reads those of
a client; `align_reports` makes ours right: aiortc reports when a packet was sent, which is not when its contents
were due.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable
from typing import Any

from aiortc import RTCRtpReceiver, RTCRtpSender
from aiortc.rtp import AnyRtcpPacket, RtcpSrPacket, RtpPacket
from av.frame import Frame

_KEPT = 8
"""Reports whose median counts: senders are some milliseconds off in each."""
_NTP_UNITS = 2**32
"""Units of an NTP timestamp in a second."""
_NTP_EPOCH_S = 2_208_988_800
"""Seconds from the beginning of NTP's time, 1900, to that of Unix time."""


class ReceivedClock:
    """What a client's reports say of the stream of one receiver. Make it before the first packet arrives."""

    def __init__(self, receiver: RTCRtpReceiver) -> None:
        self._receiver: Any = receiver
        self._reports: deque[tuple[int, float]] = deque(
            maxlen=_KEPT
        )  # RTP timestamps, with their time in seconds
        self._ssrc: int | None = None
        self._rate = 0
        inner: Any = receiver
        self._take_rtp, self._take_rtcp = inner._handle_rtp_packet, inner._handle_rtcp_packet
        inner._handle_rtp_packet, inner._handle_rtcp_packet = self._on_rtp, self._on_rtcp

    def get_source_time(self, frame: Frame) -> float | None:
        """Return when a frame of the stream was captured, in seconds of the client's clock; None if unknown."""
        origin = self._receiver._RTCRtpReceiver__timestamp_mapper._origin
        if not self._reports or origin is None or frame.time is None:
            return None
        timestamp = origin + round(frame.time * self._rate)
        return statistics.median(
            time + _signed_difference(timestamp, reported) / self._rate for reported, time in self._reports
        )

    async def _on_rtp(self, packet: RtpPacket, arrival_time_ms: int) -> None:
        codec = self._receiver._RTCRtpReceiver__codecs.get(packet.payload_type)
        if codec is not None and packet.ssrc not in self._receiver._RTCRtpReceiver__rtx_ssrc:
            if packet.ssrc != self._ssrc or codec.clockRate != self._rate:
                self._reports.clear()
            self._ssrc, self._rate = packet.ssrc, codec.clockRate
        await self._take_rtp(packet, arrival_time_ms=arrival_time_ms)

    async def _on_rtcp(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpSrPacket) and packet.ssrc == self._ssrc:
            sent = packet.sender_info
            if sent.ntp_timestamp and sent.packet_count:
                self._reports.append((sent.rtp_timestamp, sent.ntp_timestamp / _NTP_UNITS))
        await self._take_rtcp(packet)


def align_reports(sender: RTCRtpSender, get_time: Callable[[int], float]) -> None:
    """Let `sender` report the time at which the contents of its packets were due.

    `get_time` returns that time for a timestamp of the track's frames (in ticks of the RTP clock), in seconds of
    Unix time, by one clock for all tracks. No report is sent before it can be right. Call it before sending begins.
    """
    inner: Any = sender
    encode, send = inner._next_encoded_frame, inner._send_rtcp
    sent: int | None = None  # the timestamp of the frame whose packets were sent last
    origin: int | None = None  # the RTP timestamp of the track's zero

    async def encode_next(codec: Any) -> Any:
        nonlocal sent, origin
        if sent is not None and origin is None:
            origin = inner._RTCRtpSender__rtp_timestamp - sent
        frame = await encode(codec)
        sent = sent if frame is None else frame.timestamp
        return frame

    async def send_aligned(packets: list[AnyRtcpPacket]) -> None:
        report = packets[0]
        if isinstance(report, RtcpSrPacket):
            if origin is None or sent is None:
                return
            told = report.sender_info
            timestamp = sent + _signed_difference(told.rtp_timestamp, origin + sent)
            told.ntp_timestamp = round((get_time(timestamp) + _NTP_EPOCH_S) * _NTP_UNITS)
            # The receiver's reports name ours by this, for the round-trip time.
            inner._RTCRtpSender__lsr = told.ntp_timestamp >> 16 & 0xFFFFFFFF
        await send(packets)

    inner._next_encoded_frame, inner._send_rtcp = encode_next, send_aligned


def _signed_difference(one: int, other: int) -> int:
    """Return by how many ticks `one` is later than `other`, timestamps of 32 bits; negative if it is earlier."""
    return (one - other + 2**31) % 2**32 - 2**31
