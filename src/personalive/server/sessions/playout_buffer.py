"""A buffer that sends each animated frame when it is due on the source's clock.

A chunk's frames become ready all at once, and motion would jerk if they were shown at once. Each is due at its
source time plus a lag that is enough for most of the last chunks. A single late chunk is sent at once, faster than
it was captured. If the pipeline stays behind, the lag grows; when the pipeline catches up, it shrinks again. So the
queue always drains.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from personalive.media.types import Image
from personalive.pipelines.base import FrameState
from personalive.server.sessions.listeners import Listeners

_LAG_WINDOW_S = 2.0
"""Seconds for which an observed lag counts."""
_LAG_QUANTILE = 0.8
"""The share of chunks for which the lag is enough."""
_MAX_SHRINK_RATE = 0.25
"""Seconds by which the lag may shrink in a second. If it shrank faster, motion would visibly speed up."""

_STALL_THRESHOLD_S = 1.0
"""A chunk that is later than the lag by more than this many seconds is taken for a single stall and ignored, unless
chunks stay so late for as long: then the pipeline has become slower."""

_TRAIL_FRAMES = 9
"""Frames whose median trail counts: one interval between frames of a source is not as long as another."""

Planes = NDArray[np.uint8]
NO_PLANES: Planes = np.empty((0, 0), np.uint8)
"""Stands for planes that nobody needs."""


def to_planes(image: Image) -> Planes:
    """Return a frame, uint8 RGB (height, width, 3), for encoders: uint8 YUV 4:2:0 (1.5 × height, width)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class SentFrame:
    """A frame as it is sent: its `time` is in seconds since the session's beginning, on the source's clock.

    `image` is uint8 RGB (height, width, 3); `planes` is the same for encoders, uint8 YUV 4:2:0 (1.5 × height,
    width). It was due at `due_at`, in seconds of `time.monotonic`. `captured_at` is when the driving frame that it
    shows arrived, as in `PlayoutFrame`; None where the frame is repeated.
    """

    image: Image
    planes: Planes
    time: float
    state: FrameState
    due_at: float
    captured_at: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PlayoutFrame:
    """An animated frame that waits to be sent.

    `image` and `planes` are those of `SentFrame`. The frame is due at `time` on the source's clock.
    `captured_at` is the time of `time.monotonic` at which the driving frame that it shows arrived, None where it
    shows none; `delay_parts` are the parts of that frame's delay so far, in seconds by name. `trail` is by how
    many seconds that driving frame is older than `time`, since some pipelines trail their input; None where it
    shows none.
    """

    image: Image
    planes: Planes
    time: float
    state: FrameState
    captured_at: float | None
    delay_parts: dict[str, float] | None = None
    trail: float | None = None


@dataclass(frozen=True, slots=True)
class PictureLag:
    """How late the picture is: a frame is due `due` seconds after its time, in seconds of `time.monotonic`.

    What it shows was captured `trail` seconds before its time.
    """

    due: float
    trail: float


FrameCallback = Callable[[SentFrame], None]


class PlayoutDelay:
    """The lag: how much later than its source time a frame is shown."""

    def __init__(self) -> None:
        self._observed: deque[tuple[float, float]] = deque()
        self._current: float | None = None
        self._read_at = 0.0
        self._late_since: float | None = None

    def observe(self, lag: float, now: float) -> None:
        """Note that a chunk was ready `lag` seconds after the source time of its first frame."""
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
        """Return the lag to add to a source time, in seconds. Call `observe` first."""
        lags = sorted(lag for _, lag in self._observed)
        needed = lags[math.ceil(_LAG_QUANTILE * (len(lags) - 1))] if len(lags) > 2 else lags[0]
        if self._current is None:
            self._current = needed
        else:
            self._current = max(needed, self._current - _MAX_SHRINK_RATE * (now - self._read_at))
        self._read_at = now
        return self._current

    @property
    def is_known(self) -> bool:
        """Whether a chunk has been observed."""
        return bool(self._observed)

    def cap(self, lag: float, now: float) -> None:
        """Cap the delay at `lag` because the queue overflowed; earlier observations are dropped."""
        self._observed.clear()
        self._current = None
        self.observe(lag, now)


class PlayoutBuffer:
    """A buffer of at most `capacity` frames; when it is full, the oldest are dropped.

    Use it on the event loop's thread only.
    """

    def __init__(self, capacity: int, on_sent: Callable[[PlayoutFrame, float], None]) -> None:
        """Start to send. `on_sent` is called for each frame that is sent, with the time of `time.monotonic`."""
        self._frames: deque[PlayoutFrame] = deque()
        self._capacity = capacity
        self._on_sent = on_sent
        self._delay = PlayoutDelay()
        self._trails: deque[float] = deque(maxlen=_TRAIL_FRAMES)
        self._listeners: Listeners[SentFrame] = Listeners()
        self._changed = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._play(), name="outlet")
        self.last: SentFrame | None = None
        self._last_sent_at = 0.0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, frames: list[PlayoutFrame]) -> None:
        """Add frames that are ready, in order."""
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

    def get_lag(self, now: float) -> PictureLag | None:
        """Return how late the picture is at a time of `time.monotonic`, None before it shows a driving frame."""
        if not (self._delay.is_known and self._trails):
            return None
        return PictureLag(self._delay.get(now), statistics.median(self._trails))

    def add_listener(self, listener: FrameCallback) -> Callable[[], None]:
        """Call `listener` with the last frame at once and each later one; return a function that ends that."""
        unsubscribe = self._listeners.add(listener)
        if self.last is not None:
            listener(self.last)
        return unsubscribe

    def repeat_last(self) -> None:
        """Send the last frame once more, for viewers of a session that has no new frames."""
        if self.last is not None:
            now = time.monotonic()
            time_now = self.last.time + now - self._last_sent_at
            self._notify(replace(self.last, time=time_now, due_at=now, captured_at=None), now)

    def clear(self) -> None:
        """Drop all frames that wait, without counting them."""
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
            # A chunk that arrives meanwhile may shorten the lag.
            due = min(due, first.time + self._delay.get(now))
            if due > now:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), due - now)
                continue
            self._send(self._frames.popleft(), due)

    def _send(self, frame: PlayoutFrame, due_at: float) -> None:
        now = time.monotonic()
        if frame.trail is not None:
            self._trails.append(frame.trail)
        sent = SentFrame(frame.image, frame.planes, frame.time, frame.state, due_at, frame.captured_at)
        self._notify(sent, now)
        self._on_sent(frame, now)

    def _notify(self, sent: SentFrame, now: float) -> None:
        self.last, self._last_sent_at = sent, now
        self._listeners.notify(sent)
