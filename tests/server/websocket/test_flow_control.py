"""Frames over a simulated line with a rate, a length, and buffers that take anything."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personalive.server.websocket.flow_control import (
    MAX_BITRATE,
    MIN_BITRATE,
    START_BITRATE,
    FlowControl,
)

FPS = 30.0


@dataclass
class Line:
    """A line of `rate` bits per second and `round_trip` seconds, with an endless buffer before it."""

    rate: float
    round_trip: float
    flow: FlowControl = field(default_factory=FlowControl)
    queues: list[float] = field(default_factory=list)
    """Seconds of each frame before and on the line, its length not counted."""
    sound_bitrate: float = 0.0
    sound_queues: list[tuple[float, float]] = field(default_factory=list)
    """When each packet of sound was sent, and its seconds before and on the line."""
    sounds_due: int = 0
    now: float = 0.0
    sent: int = 0
    _free_at: float = 0.0
    _acknowledgements: deque[tuple[float, int]] = field(default_factory=deque)

    def run(self, seconds: float, frame_bits: float | None = None) -> None:
        """Frames of the bitrate that is asked for, or of a fixed size."""
        until = self.now + seconds
        while self.now < until:
            self.now += 1 / FPS
            self._send_sound()
            self._take_acknowledgements(self.now)
            if self.flow.may_send(self.now):
                self._send(self.flow.bitrate / FPS if frame_bits is None else frame_bits)

    def _take_acknowledgements(self, now: float) -> None:
        while self._acknowledgements and self._acknowledgements[0][0] <= now:
            at, timestamp = self._acknowledgements.popleft()
            assert self.flow.on_acknowledged(timestamp, at)

    def _send_sound(self) -> None:
        """The packets, 20 ms each, that were due since the frame before."""
        while self.sound_bitrate and self.sounds_due / 50 <= self.now:
            at, self.sounds_due = self.sounds_due / 50, self.sounds_due + 1
            self._take_acknowledgements(at)
            if self.flow.may_send_audio(at):
                size = round(self.sound_bitrate / 50 / 8)
                self.flow.on_audio_sent(size)
                self._free_at = max(self._free_at, at) + 8 * size / self.rate
                self.sound_queues.append((at, self._free_at - at))

    def _send(self, bits: float) -> None:
        timestamp = round(1e6 * self.now)
        self.flow.on_sent(timestamp, round(bits / 8), self.now)
        self._free_at = max(self._free_at, self.now) + bits / self.rate
        self.queues.append(self._free_at - self.now)
        self._acknowledgements.append((self._free_at + self.round_trip, timestamp))
        self.sent += 1


@settings(max_examples=15, deadline=None)
@given(st.floats(0.3e6, 20e6), st.floats(0.001, 0.3))
def test_queues_are_bounded_on_any_line(rate: float, round_trip: float) -> None:
    line = Line(rate, round_trip)
    line.run(30)
    first_frame = START_BITRATE / FPS / rate
    assert max(line.queues) < 0.1 + 2 * first_frame + 2 / FPS
    assert statistics.median(line.queues[-300:]) < 0.1


@settings(max_examples=15, deadline=None)
@given(st.floats(0.01, 0.3), st.floats(1.5, 20))
def test_delay_does_not_creep_where_even_the_least_bitrate_is_too_much(
    round_trip: float, excess: float
) -> None:
    line = Line(1e6, round_trip)
    line.run(120, frame_bits=excess * 1e6 / FPS)
    assert max(line.queues) <= 0.1 + 2 * excess / FPS + 2 / FPS
    assert line.sent > 10


def test_the_bitrate_falls_on_a_slow_line_and_grows_on_a_fast_one() -> None:
    slow, fast = Line(0.4e6, 0.05), Line(50e6, 0.02)
    slow.run(60)
    fast.run(60)
    assert MIN_BITRATE <= slow.flow.bitrate < 0.6e6
    assert fast.flow.bitrate == MAX_BITRATE
    assert fast.sent >= 60 * FPS - 3


def test_a_line_that_becomes_slower_is_followed() -> None:
    line = Line(10e6, 0.04)
    line.run(60)
    line.rate = 0.5e6
    line.run(5)
    line.queues.clear()
    line.run(30)
    assert statistics.median(line.queues) < 0.15


def test_a_client_that_acknowledges_nothing_gets_nothing_more() -> None:
    flow = FlowControl()
    assert flow.may_send(0.0)
    flow.on_sent(1, 1000, 0.0)
    assert not any(flow.may_send(0.1 * k) for k in range(1, 200))
    assert flow.get_unacknowledged_s(5.0) == 5.0
    assert not flow.on_acknowledged(2, 5.0)
    assert flow.on_acknowledged(1, 5.0)
    assert flow.get_unacknowledged_s(6.0) == 0.0
    assert flow.may_send(6.0)


def test_an_acknowledgement_covers_the_frames_before() -> None:
    flow = FlowControl()
    for timestamp in range(5):
        flow.on_sent(timestamp, 1000, 0.01 * timestamp)
    assert flow.on_acknowledged(3, 0.1)
    assert flow.round_trip == pytest.approx(0.07)
    assert not flow.on_acknowledged(1, 0.1)
    assert flow.on_acknowledged(4, 0.1)


# -- with sound


@settings(max_examples=15, deadline=None)
@given(st.floats(0.3e6, 20e6), st.floats(0.001, 0.3))
def test_a_line_that_takes_both_takes_all_sound(rate: float, round_trip: float) -> None:
    line = Line(rate, round_trip, sound_bitrate=64_000)
    line.run(60)
    late = [queue for at, queue in line.sound_queues if at > 30]
    assert len(late) > 0.9 * 30 * 50
    assert statistics.median(late) < 0.1
    assert line.sent > 30


@settings(max_examples=10, deadline=None)
@given(st.floats(0.03e6, 0.3e6), st.floats(0.01, 0.3))
def test_sound_does_not_creep_on_a_line_that_cannot_take_it(rate: float, round_trip: float) -> None:
    line = Line(rate, round_trip, sound_bitrate=64_000)
    line.run(120)
    # Until an acknowledgement is late, sound is sent; it waits behind that, and behind a frame of the least rate.
    longest = (round_trip + 0.3) * line.sound_bitrate / rate + 2 * START_BITRATE / FPS / rate
    for begin in (30, 90):
        late = [queue for at, queue in line.sound_queues if begin < at <= begin + 30]
        assert late
        assert statistics.median(late) < 0.3 + longest


def test_sound_counts_in_what_is_in_flight() -> None:
    flow = FlowControl()
    assert not flow.may_send_audio(0.0)  # how long the way is is not known yet
    flow.on_sent(1, 1000, 0.0)
    assert flow.on_acknowledged(1, 0.05)
    assert flow.may_send_audio(0.06)
    flow.on_sent(2, 1000, 0.1)
    assert flow.may_send_audio(0.4)
    flow.on_audio_sent(160)
    assert not flow.may_send_audio(0.46)
    assert not flow.may_send(0.46)
    assert flow.on_acknowledged(2, 0.5)
    assert not flow.may_send_audio(0.51)  # a packet may still wait on the way
    assert flow.may_send(0.52)
    flow.on_sent(3, 1000, 0.52)
    assert flow.on_acknowledged(3, 0.6)
    assert flow.may_send_audio(0.61)
