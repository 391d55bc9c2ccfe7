from __future__ import annotations

from typing import Any

from aiortc.rtp import RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from personalive.server.webrtc.audio_jitter_buffer import MAX_BURST, MAX_PACKETS_PER_S, AudioJitterBuffer


def packet(number: int, data: bytes = b"sound") -> RtpPacket:
    made: Any = RtpPacket(sequence_number=number % 2**16, timestamp=960 * number % 2**32)
    made._data = data
    return made  # type: ignore[no-any-return]


@given(st.integers(0, 2**16), st.lists(st.integers(-3, 5), max_size=60))
def test_packets_pass_at_once_and_in_order(first: int, steps: list[int]) -> None:
    """Also where the numbers wrap."""
    buffer = AudioJitterBuffer(lambda: 0.0)
    buffer.add(packet(first))
    number, newest, passed = first, first, []
    for step in steps:
        number += step
        frame = buffer.add(packet(number))[1]
        assert (frame is not None) == (number > newest)
        newest = max(newest, number)
        passed += [] if frame is None else [number]
    assert passed == sorted(set(passed))


def test_a_source_that_begins_again_is_followed() -> None:
    buffer = AudioJitterBuffer(lambda: 0.0)
    assert buffer.add(packet(30_000))[1] is not None
    assert buffer.add(packet(1_000))[1] is not None
    assert buffer.add(packet(999))[1] is None


def test_no_client_makes_more_work_than_is_allowed() -> None:
    now = 0.0
    buffer = AudioJitterBuffer(lambda: now)
    passed = 0
    for number in range(20_000):
        now = number / 2000
        passed += buffer.add(packet(number))[1] is not None
    assert abs(passed - (MAX_BURST + 10 * MAX_PACKETS_PER_S)) < 5


def test_packets_without_data_are_left_out() -> None:
    assert AudioJitterBuffer().add(packet(1, b"")) == (False, None)
