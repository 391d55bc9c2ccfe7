"""How much may be in flight: frames that were sent and not acknowledged bound the delay through any buffers.

A proxy, an SSH tunnel and the operating system each buffer what is written, so the socket's own buffer says little
about what the client has. The client acknowledges each frame that it has shown. The time from sending a frame to
its acknowledgement, less the least such time of the last seconds, is spent in queues. Since that is known a round
trip later only, what is in flight is bounded by the rate at which frames arrived lately too, as in BBR
(https://dl.acm.org/doi/10.1145/3012426.3022184).
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass

MIN_BITRATE, START_BITRATE, MAX_BITRATE = 100_000, 1_000_000, 3_000_000
"""Bits per second."""
_MAX_QUEUE_S = 0.1
"""Seconds in queues up to which frames are sent."""
_MAX_AUDIO_QUEUE_S = 0.3
"""Seconds in queues up to which sound is sent: more, since a gap is heard, and sound takes little of the line."""
_LONG_QUEUE_S = 0.05
"""Seconds in queues above which the bitrate does not grow."""
_MIN_ROUND_TRIP_WINDOW_S = 20.0
_MAX_RATE_WINDOW_S = 10.0
_DECREASE, _INCREASE = 0.75, 1.25
_DECREASE_INTERVAL_S, _INCREASE_INTERVAL_S = 1.0, 4.0
_MAX_SKIPPED_SHARE = 0.1
"""The share of frames that may be left out before the bitrate decreases."""
_MIN_FRAMES = 5
_MAX_UNACKNOWLEDGED = 64


@dataclass(frozen=True, slots=True)
class _FrameInFlight:
    """A frame and the sound before it, `bits` together, and how many had arrived by which time when it was sent."""

    sent_at: float
    bits: int
    arrived_bits: int
    arrived_at: float


class FlowControl:
    """The frames in flight to one receiver. All times are in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.bitrate = START_BITRATE
        self._in_flight: OrderedDict[int, _FrameInFlight] = OrderedDict()
        self._arrived_bits = self._bits_in_flight = 0
        self._arrived_at = 0.0
        self._rates: deque[tuple[float, float]] = deque()  # decreasing, so that the first is the largest
        self._round_trips: deque[tuple[float, float]] = deque()  # increasing, so that the first is the least
        self._queued = 0.0
        self._sent = self._skipped = 0
        self._longest_queued = 0.0
        self._adapted_at: float | None = None
        self._is_draining = False
        self._audio_bits = 0
        """Bits of sound that were sent since the last frame: the acknowledgement of the next one covers them."""
        self._is_audio_late = False
        self._audio_covered_by: int | None = None
        """The frame whose acknowledgement says that all sound has arrived, where sound is late and it is sent."""

    @property
    def round_trip(self) -> float | None:
        """The least seconds of late from sending a frame to its acknowledgement; None before the first."""
        return self._round_trips[0][1] if self._round_trips else None

    def get_unacknowledged_s(self, now: float) -> float:
        """Return the seconds for which the oldest frame in flight has been there; 0 where there is none."""
        return now - next(iter(self._in_flight.values())).sent_at if self._in_flight else 0.0

    def may_send(self, now: float) -> bool:
        """Return whether a frame may be sent now. If not, leave it out before it is encoded; this counts it."""
        allowed = self._is_open(now)
        if allowed:
            self._sent += 1
        else:
            self._skipped += 1
        self._adapt(now)
        return allowed

    def may_send_audio(self, now: float) -> bool:
        """Return whether a packet of sound may be sent now; if not, leave it out.

        Sound goes before frames: it is left out only where a frame's acknowledgement is very late, and then until
        no sound is in flight either, so that it does not keep the queue that delays it.
        """
        if self.round_trip is None:
            return False
        if not self._is_audio_late and self.get_unacknowledged_s(now) > self.round_trip + _MAX_AUDIO_QUEUE_S:
            self._is_audio_late = self._is_draining = True
            self._audio_covered_by = None if self._audio_bits else next(reversed(self._in_flight))
        return not self._is_audio_late

    def on_audio_sent(self, size: int) -> None:
        """Note that a packet of sound of `size` bytes is written to the socket."""
        self._audio_bits += 8 * size

    def _is_open(self, now: float) -> bool:
        if not self._in_flight:
            self._is_draining = False
            return True
        # The first frame is a keyframe, and how long the way is is not known yet.
        most = 0.0 if self.round_trip is None else self.round_trip + _MAX_QUEUE_S
        rate = self._rates[0][1] if self._rates else 0.0
        is_full = self._bits_in_flight + self._audio_bits > most * max(rate, MIN_BITRATE)
        if is_full or len(self._in_flight) >= _MAX_UNACKNOWLEDGED or self.get_unacknowledged_s(now) > most:
            # Until all queues are empty: the next frame then measures the way without them. Otherwise queues that
            # never empty would be taken for a part of the way, and grow.
            self._is_draining = True
        return not self._is_draining

    def on_sent(self, timestamp: int, size: int, now: float) -> None:
        """Note that a frame of `size` bytes is written to the socket."""
        if not self._in_flight:
            self._arrived_at = now
        bits, self._audio_bits = 8 * size + self._audio_bits, 0
        self._in_flight[timestamp] = _FrameInFlight(now, bits, self._arrived_bits, self._arrived_at)
        self._bits_in_flight += bits
        if self._is_audio_late and self._audio_covered_by is None:
            self._audio_covered_by = timestamp

    def on_acknowledged(self, timestamp: int, now: float) -> bool:
        """Note that a frame, and those before it, arrived. Return False where that frame is not in flight."""
        frame = self._in_flight.get(timestamp)
        if frame is None:
            return False
        while self._in_flight and next(iter(self._in_flight)) <= timestamp:
            _, arrived = self._in_flight.popitem(last=False)
            self._arrived_bits += arrived.bits
            self._bits_in_flight -= arrived.bits
        if self._audio_covered_by is not None and timestamp >= self._audio_covered_by:
            self._is_audio_late, self._audio_covered_by = False, None
        self._arrived_at = now
        self._observe_round_trip(now - frame.sent_at, now)
        if now > frame.arrived_at:
            self._observe_rate((self._arrived_bits - frame.arrived_bits) / (now - frame.arrived_at), now)
        return True

    def _observe_rate(self, rate: float, now: float) -> None:
        while self._rates and self._rates[-1][1] <= rate:
            self._rates.pop()
        self._rates.append((now, rate))
        while self._rates[0][0] < now - _MAX_RATE_WINDOW_S:
            self._rates.popleft()

    def _observe_round_trip(self, round_trip: float, now: float) -> None:
        while self._round_trips and self._round_trips[-1][1] >= round_trip:
            self._round_trips.pop()
        self._round_trips.append((now, round_trip))
        while self._round_trips[0][0] < now - _MIN_ROUND_TRIP_WINDOW_S:
            self._round_trips.popleft()
        self._longest_queued = max(self._longest_queued, round_trip - self._round_trips[0][1])

    def _adapt(self, now: float) -> None:
        """Change the bitrate in steps, since each makes a new encoder and a keyframe."""
        if self._adapted_at is None:
            self._adapted_at = now
        waited = now - self._adapted_at
        count = self._sent + self._skipped
        if waited < _DECREASE_INTERVAL_S or count < _MIN_FRAMES:
            return
        if self._skipped > _MAX_SKIPPED_SHARE * count and self.bitrate > MIN_BITRATE:
            self._set_bitrate(max(MIN_BITRATE, math.floor(self.bitrate * _DECREASE)), now)
        elif waited >= _INCREASE_INTERVAL_S:
            grows = self._skipped == 0 and self._longest_queued < _LONG_QUEUE_S
            self._set_bitrate(
                min(MAX_BITRATE, math.floor(self.bitrate * _INCREASE)) if grows else self.bitrate, now
            )

    def _set_bitrate(self, bitrate: int, now: float) -> None:
        self.bitrate, self._adapted_at = bitrate, now
        self._sent = self._skipped = 0
        self._longest_queued = 0.0
