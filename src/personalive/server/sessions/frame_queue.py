"""Driving frames on their way in: a bounded queue in which the newest win, thinned evenly when there are too many.

A camera faster than the pipeline must not build up a backlog, nor lose its frames in bursts: what is kept is spread
as evenly over time as can be, and always ends with the newest frame.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque

import av

from personalive.media.types import Image

_MAX_BEHIND_S = 1.0
"""Seconds by which a source's clock may fall behind ours before it counts as another clock."""
_MAX_AHEAD_S = 0.25
"""And run ahead: frames come late, but never before they were made. Those of a burst are older than they seem."""
_MAX_SLEW = 1e-3
"""Part by which a source's clock may be faster or slower than ours for as long as it streams."""
_MAX_AGE_S = 1.5
"""Seconds that a frame may wait: what a driver did before that is of no interest any more."""
_MAX_SHORT_SIDE = 720
"""Of a frame that is looked at. No face is found better in a larger one, and converting it takes longer."""


class QueuedFrame:
    """A driving frame: `time` in seconds of the source's clock, `arrived_at` in seconds of ours, when it came.

    `image` uint8 RGB (height, width, 3) and `ready_at`, when it could be stepped, are set once it is prepared.
    """

    __slots__ = ("arrived_at", "frame", "image", "ready_at", "time")

    def __init__(self, frame: av.VideoFrame, time: float, arrived_at: float) -> None:
        self.frame, self.time, self.arrived_at = frame, time, arrived_at
        self.image: Image | None = None
        self.ready_at = math.inf

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.frame.width, self.frame.height

    @property
    def is_prepared(self) -> bool:
        """Whether a step may take it."""
        return self.image is not None


class SourceClock:
    """A source's own time, kept increasing whatever its timestamps do.

    Timestamps space frames more evenly than the network does, but sources are replaced, restart and jump.
    """

    def __init__(self) -> None:
        self._offset: float | None = None
        self._start = 0.0  # the time of our clock at which the source's time is zero
        self._last = 0.0
        self._last_at = 0.0

    def read(self, timestamp: float | None, at: float) -> float:
        """Seconds since the first frame, for a frame stamped `timestamp` that came at `arrived_at`."""
        if self._offset is None:
            self._offset = 0.0 - (timestamp or 0.0)
            self._start = self._last_at = at
            return 0.0
        expected = at - self._start
        time = expected if timestamp is None else timestamp + self._offset
        if time <= self._last or not -_MAX_BEHIND_S <= time - expected <= _MAX_AHEAD_S:
            time = max(expected, self._last + 1e-3)
            if timestamp is not None:
                self._offset = time - timestamp
        slew = _MAX_SLEW * (at - self._last_at)
        self._start += min(max(expected - time, -slew), slew)
        self._last, self._last_at = time, at
        return time


class FrameQueue:
    """Holds two chunks of `chunk_frames` at most. Any thread may put and take.

    Frames are prepared in the order in which they came, so those that are prepared come first.
    """

    def __init__(self, chunk_frames: int) -> None:
        self._chunk_frames = chunk_frames
        self._capacity = 2 * chunk_frames
        self._frames: deque[QueuedFrame] = deque()
        self._discarded: list[float] = []
        self._lock = threading.Lock()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def has_chunk(self) -> bool:
        """Whether a chunk is there."""
        with self._lock:
            return self._count_prepared() >= self._chunk_frames

    def put(self, frame: QueuedFrame) -> None:
        """Add a frame; another one goes if there is no room, and all go that have another size."""
        with self._lock:
            if self._frames and self._frames[-1].size != frame.size:
                while self._frames:
                    self._drop(0)
            self._frames.append(frame)
            while frame.arrived_at - self._frames[0].arrived_at > _MAX_AGE_S:
                self._drop(0)
            if len(self._frames) > self._capacity:
                self._drop_most_redundant()

    def count_dropped(self) -> None:
        """Count a frame that was dropped before it came here."""
        with self._lock:
            self.dropped += 1

    def pop_chunk(self, now: float, until: float = math.inf) -> list[QueuedFrame] | None:
        """A chunk, oldest first, or None if there is none; `now` is the time of our clock.

        Frames later than `until` are left for the next chunk if there are enough others: the pipeline would have to
        wait for them.

        What came with the chunk in a burst is left for the next one. But if the chunk was complete for longer than
        a frame's time, the pipeline is behind, and would stay so: then the chunk is spread over all that is there.
        """
        with self._lock:
            count = self._count_prepared()
            if count < self._chunk_frames:
                return None
            seen = sum(arrived.time <= until for arrived in itertools.islice(self._frames, count))
            count = seen if seen >= self._chunk_frames else count
            there = [self._frames.popleft() for _ in range(count)]
            if not self._is_behind(there, now):
                self._frames.extendleft(reversed(there[self._chunk_frames :]))
                return there[: self._chunk_frames]
            self.dropped += count - self._chunk_frames
            return [there[(k + 1) * count // self._chunk_frames - 1] for k in range(self._chunk_frames)]

    def _is_behind(self, there: list[QueuedFrame], now: float) -> bool:
        surplus = len(there) - self._chunk_frames
        if surplus == 0:
            return False
        interval = (there[-1].time - there[0].time) / (len(there) - 1)
        return surplus >= self._chunk_frames or now - there[self._chunk_frames - 1].ready_at > interval

    def next_unprepared(self) -> QueuedFrame | None:
        """Return the oldest frame that is not prepared yet."""
        with self._lock:
            return next((arrived for arrived in self._frames if not arrived.is_prepared), None)

    def set_prepared(self, frame: QueuedFrame, image: Image, now: float) -> bool:
        """Let steps take the frame; return False where it was dropped meanwhile."""
        with self._lock:
            frame.image, frame.ready_at = image, now
            return any(other is frame for other in self._frames)

    def pop_discarded(self) -> list[float]:
        """Return, once, the times of frames that were dropped after they had been prepared."""
        with self._lock:
            discarded, self._discarded = self._discarded, []
            return discarded

    def clear(self) -> None:
        """Drop what is there, uncounted."""
        with self._lock:
            dropped = self.dropped
            while self._frames:
                self._drop(0)
            self.dropped = dropped

    def _count_prepared(self) -> int:
        return sum(1 for _ in itertools.takewhile(lambda arrived: arrived.is_prepared, self._frames))

    def _drop(self, index: int) -> None:
        if self._frames[index].is_prepared:
            self._discarded.append(self._frames[index].time)
        del self._frames[index]
        self.dropped += 1

    def _drop_most_redundant(self) -> None:
        """Drop the frame that leaves the smallest gap behind: neither the oldest nor the newest."""
        times = [arrived.time for arrived in self._frames]
        gaps = [later - earlier for earlier, later in zip(times, times[2:], strict=False)]
        self._drop(1 + gaps.index(min(gaps)))


def to_image(frame: av.VideoFrame) -> Image:
    """The frame, of a shape that `check_shape` accepts, as uint8 RGB (height, width, 3), smaller if it is large."""
    shrink = min(_MAX_SHORT_SIDE / min(frame.width, frame.height), 1.0)
    width, height = round(frame.width * shrink), round(frame.height * shrink)
    image: Image = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()  # type: ignore[assignment]
    return image
