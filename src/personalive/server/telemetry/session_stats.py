"""A session's statistics: rates, delay, and losses. Written and read on the event loop's thread."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

_RATE_WINDOW_S = 3.0
_DELAY_WINDOW_S = 10.0

DELAY_PARTS = ("chunk", "window", "step", "send")
"""The parts of a frame's delay, in order: until its chunk is complete and taken, in the pipeline's window,
in the step that finishes it, and until the frame is sent.
"""


class RateCounter:
    """The rate of events over the last `_RATE_WINDOW_S` seconds."""

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self._times: deque[float] = deque()

    def count(self, now: float) -> None:
        """Count an event at the time `now`."""
        self._times.append(now)
        self._drop_old(now)

    def per_second(self, now: float) -> float:
        """Return the events per second."""
        self._drop_old(now)
        return len(self._times) / max(min(_RATE_WINDOW_S, now - self._started_at), 0.1)

    def _drop_old(self, now: float) -> None:
        while self._times and self._times[0] < now - _RATE_WINDOW_S:
            self._times.popleft()


class RecentDelays:
    """The delays of the last `_DELAY_WINDOW_S` seconds, in seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()

    def add(self, delay: float, now: float) -> None:
        """Add one frame's delay."""
        self._samples.append((now, delay))
        while self._samples[0][0] < now - _DELAY_WINDOW_S:
            self._samples.popleft()

    def quantile(self, share: float) -> float | None:
        """Return the delay below which this share of frames stays, None without frames."""
        if not self._samples:
            return None
        ordered = sorted(delay for _, delay in self._samples)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class DelayStats:
    """The delays of the last `_DELAY_WINDOW_S` seconds and their parts, in seconds."""

    def __init__(self) -> None:
        self._totals = RecentDelays()
        self._samples: deque[tuple[float, dict[str, float]]] = deque()

    def add(self, parts: Mapping[str, float], now: float) -> None:
        """Add the parts of one frame's delay, in seconds, by the names of `DELAY_PARTS`; omit unknown parts.

        Raises `ValueError` for another name.
        """
        if unknown := parts.keys() - set(DELAY_PARTS):
            raise ValueError(f"There is no part of the delay called {', '.join(sorted(unknown))}.")
        self._totals.add(sum(parts.values()), now)
        self._samples.append((now, dict(parts)))
        while self._samples[0][0] < now - _DELAY_WINDOW_S:
            self._samples.popleft()

    def quantile(self, share: float) -> float | None:
        """Return the delay below which this share of frames stays, in seconds, or None without frames."""
        return self._totals.quantile(share)

    def medians(self) -> dict[str, float | None]:
        """Return the median of each part in seconds, None where no frame of the last seconds had it."""
        return {name: self._median(name) for name in DELAY_PARTS}

    def _median(self, name: str) -> float | None:
        known = [parts[name] for _, parts in self._samples if name in parts]
        return statistics.median(known) if known else None


@dataclass(slots=True)
class SessionStats:
    """The statistics of one session. Counts start at its beginning; delays are seconds from capture to send."""

    fps_in: RateCounter = field(default_factory=RateCounter)
    fps_out: RateCounter = field(default_factory=RateCounter)
    delays: DelayStats = field(default_factory=DelayStats)
    frames_in: int = 0
    frames_out: int = 0
    frames_without_face: int = 0
    chunk_seconds: float = 0.0
    """The duration of the last step."""
    pipeline_figures: dict[str, float] = field(default_factory=dict)
    """The pipeline's figures for the session, by name."""
