"""What a session's stream is like: rates, delay, losses. Written and read on the event loop's thread."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

_RATE_WINDOW_S = 3.0
_DELAY_WINDOW_S = 10.0

DELAY_PARTS = ("chunk", "window", "step", "send")
"""Where a frame spends its delay, in order: until its chunk is complete and taken, in the pipeline's window,
in the step that finishes it, until its turn to be sent comes.
"""


class RateCounter:
    """Events per second over the last seconds."""

    def __init__(self) -> None:
        self._started_at = time.monotonic()
        self._times: deque[float] = deque()

    def count(self, now: float) -> None:
        """One happened."""
        self._times.append(now)
        self._drop_old(now)

    def per_second(self, now: float) -> float:
        """Events per second."""
        self._drop_old(now)
        return len(self._times) / max(min(_RATE_WINDOW_S, now - self._started_at), 0.1)

    def _drop_old(self, now: float) -> None:
        while self._times and self._times[0] < now - _RATE_WINDOW_S:
            self._times.popleft()


class DelayStats:
    """Delays of the last seconds, in seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()

    def add(self, delay: float, now: float) -> None:
        """One more."""
        self._samples.append((now, delay))
        while self._samples[0][0] < now - _DELAY_WINDOW_S:
            self._samples.popleft()

    def quantile(self, share: float) -> float | None:
        """The delay that this share of frames stays below; None while there is none."""
        if not self._samples:
            return None
        ordered = sorted(delay for _, delay in self._samples)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


class DelayBreakdown:
    """Where the frames of the last seconds spent their delay, in seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, float]]] = deque()

    def add(self, parts: Mapping[str, float], now: float) -> None:
        """Add what one frame spent, in seconds by the names of `DELAY_PARTS`; leave out what is unknown.

        Raises `ValueError` for another name.
        """
        if unknown := parts.keys() - set(DELAY_PARTS):
            raise ValueError(f"There is no part of the delay called {', '.join(sorted(unknown))}.")
        self._samples.append((now, dict(parts)))
        while self._samples[0][0] < now - _DELAY_WINDOW_S:
            self._samples.popleft()

    def medians(self) -> dict[str, float | None]:
        """Return the median of each part in seconds, None where no frame of the last seconds had it."""
        return {name: self._median(name) for name in DELAY_PARTS}

    def _median(self, name: str) -> float | None:
        known = [parts[name] for _, parts in self._samples if name in parts]
        return statistics.median(known) if known else None


@dataclass(slots=True)
class SessionStats:
    """Of one session. Counts are since its beginning, delays are capture to send in seconds."""

    fps_in: RateCounter = field(default_factory=RateCounter)
    fps_out: RateCounter = field(default_factory=RateCounter)
    delays: DelayStats = field(default_factory=DelayStats)
    parts: DelayBreakdown = field(default_factory=DelayBreakdown)
    """Of `delays`, frame by frame."""
    frames_in: int = 0
    frames_out: int = 0
    frames_without_face: int = 0
    chunk_seconds: float = 0.0
    """Of the last step."""
    pipeline_figures: dict[str, float] = field(default_factory=dict)
    """What the pipeline counts of a session, by name."""
