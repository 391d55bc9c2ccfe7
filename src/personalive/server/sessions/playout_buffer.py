"""Animated frames on their way out, each sent when its turn comes on the source's clock.

A chunk's frames arrive all at once; shown at once they would jerk. Each is due at its source time plus a lag: what
most of the last chunks needed to be ready. A single late chunk is sent at once, and hurries; a pipeline that falls
behind for good is followed, and when it catches up the lag shrinks again. The queue drains, and never creeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from personalive.media.types import Image
from personalive.pipelines.base import FrameState

_LAG_WINDOW_S = 2.0
"""Seconds for which a lag counts."""
_LAG_QUANTILE = 0.8
"""The share of chunks that the lag is enough for."""
_MAX_SHRINK_RATE = 0.25
"""Seconds by which the lag may shrink in a second: faster, and the picture would visibly hurry."""

_STALL_THRESHOLD_S = 1.0
"""Seconds by which a chunk is later than all before because something stood still, not because the pipeline has
become slower: unless all are for as long."""

Planes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class PlayoutFrame:
    """An animated frame: `image` uint8 RGB (height, width, 3), `planes` the same as encoders want it, uint8
    YUV 4:2:0 (1.5 × height, width); `time`, when it is due on the source's clock; `captured_at`, when the driving
    frame that it shows came, in seconds of `time.monotonic`, None where it shows none; `delay_parts`: where that frame's
    delay comes from so far, seconds by name."""

    image: Image
    planes: Planes
    time: float
    state: FrameState
    captured_at: float | None
    delay_parts: dict[str, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SentFrame:
    """A frame as it is sent: `time` in seconds since the session's beginning, at its own even pace."""

    image: Image
    planes: Planes
    time: float
    state: FrameState


FrameCallback = Callable[[SentFrame], None]


class PlayoutDelay:
    """How much later than its source time a frame is shown."""

    def __init__(self) -> None:
        self._observed: deque[tuple[float, float]] = deque()
        self._current: float | None = None
        self._read_at = 0.0
        self._late_since: float | None = None

    def observe(self, lag: float, now: float) -> None:
        """A chunk was ready so much later than the source time of its first frame."""
        if self._current is None or lag <= self._current + _STALL_THRESHOLD_S:
            self._late_since = None
        else:
            self._late_since = now if self._late_since is None else self._late_since
            if now - self._late_since < _STALL_THRESHOLD_S:
                return
        self._observed.append((now, lag))
        while self._observed[0][0] < now - _LAG_WINDOW_S:
            self._observed.popleft()

    def get(self, now: float) -> float:
        """What to add to a source time. Observe something before."""
        lags = sorted(lag for _, lag in self._observed)
        needed = lags[math.ceil(_LAG_QUANTILE * (len(lags) - 1))] if len(lags) > 2 else lags[0]
        if self._current is None:
            self._current = needed
        else:
            self._current = max(needed, self._current - _MAX_SHRINK_RATE * (now - self._read_at))
        self._read_at = now
        return self._current

    def cap(self, lag: float, now: float) -> None:
        """More waits than may: be no later than this, whatever was seen."""
        self._observed.clear()
        self._current = None
        self.observe(lag, now)


class PlayoutBuffer:
    """Give frames from the event loop's thread only. Holds `capacity` frames at most; the oldest go."""

    def __init__(self, capacity: int, on_sent: Callable[[PlayoutFrame, float], None]) -> None:
        """`on_sent` hears of each frame as it leaves, with the time of `time.monotonic`."""
        self._frames: deque[PlayoutFrame] = deque()
        self._capacity = capacity
        self._on_sent = on_sent
        self._delay = PlayoutDelay()
        self._listeners: list[FrameCallback] = []
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._play(), name="outlet")
        self.last: SentFrame | None = None
        self._last_sent_at = 0.0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, frames: list[PlayoutFrame]) -> None:
        """Frames that are ready, in order."""
        if not frames:
            return
        now = time.monotonic()
        self._delay.observe(now - frames[0].time, now)
        self._frames.extend(frames)
        surplus = len(self._frames) - self._capacity
        if surplus > 0:
            for _ in range(surplus):
                self._frames.popleft()
            self.dropped += surplus
            self._delay.cap(now - self._frames[0].time, now)
        self._changed.set()

    def add_listener(self, listener: FrameCallback) -> Callable[[], None]:
        """Call `listener` with every frame from now on, and with the last one at once. Returns what ends that."""
        self._listeners.append(listener)
        if self.last is not None:
            listener(self.last)

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return unsubscribe

    def repeat_last(self) -> None:
        """Show the last frame once more: for viewers of a stream that stands still."""
        if self.last is not None:
            now = time.monotonic()
            self._notify(replace(self.last, time=self.last.time + now - self._last_sent_at), now)

    def clear(self) -> None:
        """Drop what waits, uncounted."""
        self._frames.clear()

    async def close(self) -> None:
        """Send nothing more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._listeners.clear()
        self._frames.clear()

    async def _play(self) -> None:
        first, due = None, math.inf
        while True:
            self._changed.clear()
            if not self._frames:
                await self._changed.wait()
                continue
            now = time.monotonic()
            if self._frames[0] is not first:
                first, due = self._frames[0], math.inf
            # What comes meanwhile may show that it need not wait for so long.
            due = min(due, first.time + self._delay.get(now))
            if due > now:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), due - now)
                continue
            self._send(self._frames.popleft())

    def _send(self, frame: PlayoutFrame) -> None:
        now = time.monotonic()
        self._notify(SentFrame(frame.image, frame.planes, frame.time, frame.state), now)
        self._on_sent(frame, now)

    def _notify(self, sent: SentFrame, now: float) -> None:
        self.last, self._last_sent_at = sent, now
        for sink in list(self._listeners):
            sink(sent)
