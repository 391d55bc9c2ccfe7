from __future__ import annotations

import asyncio
from random import Random

from aiortc import RTCPeerConnection
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from personalive.server.webrtc import jitter_buffer
from personalive.server.webrtc.jitter_buffer import (
    MAX_WAIT_S,
    LowLatencyJitterBuffer,
    use_low_latency_jitter_buffer,
)

TICKS = 3600
"""Of the video's clock, for a frame of 25 a second."""
FRAME_S = 0.04
SIZES = st.lists(st.integers(1, 6), min_size=2, max_size=60)
BEGIN = st.integers(0, 2**16 - 1)


def packets(sizes: list[int], begin: int = 0, pause: int = 0) -> list[RtpPacket]:
    """Return frames of `sizes` packets each, with a gap of `pause` frames in the middle."""
    made = []
    number, at = begin, begin * 7
    for index, size in enumerate(sizes):
        if index == len(sizes) // 2:
            number, at = number + pause, at + pause * TICKS
        for part in range(size):
            packet = RtpPacket(
                sequence_number=number % 2**16, timestamp=at % 2**32, marker=int(part == size - 1)
            )
            packet._data = bytes([index % 256, part])  # type: ignore[attr-defined]
            made.append(packet)
            number += 1
        at += TICKS
    return made


def whole(timestamp: int, sent: list[RtpPacket]) -> bytes:
    return b"".join(packet._data for packet in sent if packet.timestamp == timestamp)  # type: ignore[attr-defined]


class Receiver:
    """A buffer with a simulated clock; frames are sent at their own pace."""

    def __init__(self) -> None:
        self.now = 0.0
        self.buffer = LowLatencyJitterBuffer(lambda: self.now)
        self.frames: list[JitterFrame] = []
        self.keys = 0

    def take(self, sent: list[RtpPacket]) -> None:
        last = None
        for packet in sent:
            if packet.timestamp != last:
                self.now, last = self.now + FRAME_S, packet.timestamp
            wants_key, frame = self.buffer.add(packet)
            self.keys += wants_key
            if frame is not None:
                self.frames.append(frame)


@given(SIZES, BEGIN, st.randoms(use_true_random=False))
def test_without_losses_it_is_the_librarys_own(sizes: list[int], begin: int, random: Random) -> None:
    """Out of order by a few packets, too."""
    sent = packets(sizes, begin)
    order = sorted(range(len(sent)), key=lambda index: index + 3 * random.random())
    theirs, ours = JitterBuffer(capacity=512, is_video=True), Receiver()
    expected = [frame for index in order if (frame := theirs.add(sent[index])[1]) is not None]
    ours.take([sent[index] for index in order])
    assert [(frame.timestamp, frame.data) for frame in ours.frames] == [
        (frame.timestamp, frame.data) for frame in expected
    ]
    assert ours.keys == 0


@given(SIZES, BEGIN, st.sets(st.integers(0, 150), max_size=40))
def test_what_is_lost_holds_nothing_up_for_long_and_no_frame_comes_in_parts(
    sizes: list[int], begin: int, lost: set[int]
) -> None:
    sizes = [*sizes, *[2] * 16]  # all is well again for longer than a missing packet is waited for
    sent = packets(sizes, begin)
    calm = len(sent) - 32
    receiver = Receiver()
    came = [packet for index, packet in enumerate(sent) if index not in lost or index >= calm]
    receiver.take(came)
    # Where the very first packets are lost, nobody knows that there were any.
    known = [frame for frame in receiver.frames if frame.timestamp != came[0].timestamp]
    assert all(frame.data == whole(frame.timestamp, sent) for frame in known)
    # A frame is known to be complete when the next one begins.
    assert receiver.frames[-1].timestamp == sent[-3].timestamp
    assert receiver.keys <= len(lost)


@given(st.integers(1, 4), BEGIN, st.integers(30, 2000))
def test_after_a_pause_the_newest_wins_at_once(size: int, begin: int, pause: int) -> None:
    """As when the process stood still: what was sent meanwhile is lost."""
    sent = packets([size] * 20, begin, pause)
    receiver = Receiver()
    receiver.take(sent[: 13 * size])
    newest = [frame.timestamp for frame in receiver.frames][-1]
    assert newest in {packet.timestamp for packet in sent[10 * size :]}
    assert receiver.keys == 1


def test_a_packet_that_is_sent_again_in_time_costs_nothing() -> None:
    sent = packets([2] * 12)
    late = sent.pop(5)
    receiver = Receiver()
    receiver.take([*sent[:9], late, *sent[9:]])
    assert receiver.keys == 0
    assert [frame.timestamp for frame in receiver.frames] == [
        TICKS * index for index in range(len(receiver.frames))
    ]
    assert receiver.now > MAX_WAIT_S


def test_the_library_keeps_its_buffer_where_it_is_looked_for() -> None:
    """It has no setting for it."""

    async def kinds() -> list[type]:
        connection = RTCPeerConnection()
        connection.addTransceiver("video")
        connection.addTransceiver("audio")
        use_low_latency_jitter_buffer(connection)
        return [
            type(getattr(receiver, jitter_buffer._JITTER_BUFFER_ATTRIBUTE))
            for receiver in connection.getReceivers()
        ]

    assert asyncio.run(kinds()) == [LowLatencyJitterBuffer, JitterBuffer]
