"""The time of sound on its session's clock, which is that of the picture.

Where the source says by which clock both were captured (RTCP sender reports do), sound gets the time of the picture
that was captured with it. Until then, what arrives together counts as captured together.
"""

from __future__ import annotations

import statistics
from collections import deque

_KEPT = 50
"""Observations whose median counts: a second of sound, or two of picture."""
_JUMP_S = 0.5
"""A change of timestamps by more than this many seconds means another stream."""
_MAX_DISAGREEMENT_S = 1.0
"""Seconds by which a source's clock may disagree with the times of arrival before it is not believed."""


class AudioClock:
    """The clock of one session's sound. All times are in seconds; `now` is of `time.monotonic`."""

    def __init__(self) -> None:
        self._picture = ClockOffset()
        """From the local clock to the session's."""
        self._captured = ClockOffset()
        """From the source's clock to the session's."""
        self._sound = ClockOffset()
        """From the timestamps of the sound to the session's clock, by arrival."""

    def note_frame(self, time: float, source_time: float | None, now: float) -> None:
        """Note that a driving frame, which has `time` on the session's clock, has arrived.

        `source_time` is when it was captured, by the clock that the source has for sound and picture.
        """
        self._picture.observe(time - now)
        if source_time is not None:
            self._captured.observe(time - source_time)

    @property
    def ahead(self) -> float:
        """The seconds to add to a time of `time.monotonic` to get the time of a frame that arrives then."""
        return self._picture.value or 0.0

    def read(self, timestamp: float, source_time: float | None, now: float) -> float | None:
        """Return the time of sound with this `timestamp` that has arrived; None before the first driving frame."""
        behind = self._picture.value
        if behind is None:
            return None
        self._sound.observe(now + behind - timestamp)
        assert self._sound.value is not None
        by_arrival = timestamp + self._sound.value
        if source_time is None or self._captured.value is None:
            return by_arrival
        by_source = source_time + self._captured.value
        return by_source if abs(by_source - by_arrival) <= _MAX_DISAGREEMENT_S else by_arrival


class ClockOffset:
    """The median of the last observations of a difference between two clocks, in seconds."""

    def __init__(self) -> None:
        self._observed: deque[float] = deque(maxlen=_KEPT)
        self.value: float | None = None
        """The median, None before the first observation."""

    def observe(self, offset: float) -> None:
        """Add an observation. One that differs much means that a clock was set: those before are forgotten."""
        if self.value is not None and abs(offset - self.value) > _JUMP_S:
            self._observed.clear()
        self._observed.append(offset)
        self.value = statistics.median(self._observed)
