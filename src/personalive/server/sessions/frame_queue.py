"""A bounded queue of driving frames, which are dropped evenly when there are too many.

A camera faster than the pipeline must not build up a backlog, nor lose its frames in bursts. The frames that are
kept are spread as evenly over time as possible, and always end with the newest frame.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque

import av

from personalive.media.types import Image

_MAX_BEHIND_S = 1.0
"""Seconds by which a source's clock may fall behind the local one before it counts as another clock."""
_MAX_AHEAD_S = 0.25
"""Seconds by which it may run ahead. No frame arrives before it was made; in a burst it is older than it seems."""
_MAX_SLEW = 1e-3
"""Relative rate by which a source's clock may be faster or slower than the local one all the time."""
_MAX_AGE_S = 1.5
"""Seconds that a frame may wait. Older frames are outdated."""
_MAX_SHORT_SIDE = 720
"""Pixels of a converted frame. Larger frames do not help to find faces, and take longer to convert."""


class QueuedFrame:
    """A driving frame: its `time` in seconds of the source's clock, and `arrived_at` in seconds of the local one.

    `image`, uint8 RGB (height, width, 3), and `ready_at`, the time from which a step may take the frame, are set
    once it is prepared.
    """

    __slots__ = ("arrived_at", "frame", "image", "ready_at", "time")

    def __init__(self, frame: av.VideoFrame, time: float, arrived_at: float) -> None:
        self.frame, self.time, self.arrived_at = frame, time, arrived_at
        self.image: Image | None = None
        self.ready_at = math.inf

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.frame.width, self.frame.height

    @property
    def is_prepared(self) -> bool:
        """Whether a step may take it."""
        return self.image is not None


class SourceClock:
    """A source's own time, which always increases, even where its timestamps do not.

    Timestamps space frames more evenly than the network does, but sources are replaced, restart and jump.
    """

    def __init__(self) -> None:
        self._offset: float | None = None
        self._start = 0.0  # the local time at which the source's time is zero
        self._last = 0.0
        self._last_at = 0.0

    def read(self, timestamp: float | None, at: float) -> float:
        """Return the seconds since the first frame, for a frame with this `timestamp` that arrived at time `at`."""
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
    """A queue of at most two chunks of `chunk_frames` frames, for use on any thread.

    Frames are prepared in the order in which they arrived, so the prepared ones come first.
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
        """Whether there are enough prepared frames for a chunk."""
        with self._lock:
            return self._count_prepared() >= self._chunk_frames

    def put(self, frame: QueuedFrame) -> None:
        """Add a frame. Another one is dropped if there is no room, and all others if their size differs."""
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
        """Count a frame that was dropped before it was put into the queue."""
        with self._lock:
            self.dropped += 1

    def pop_chunk(self, now: float, until: float = math.inf) -> list[QueuedFrame] | None:
        """Take a chunk, oldest frame first, or return None if there is none. `now` is the local time.

        Frames later than `until` are left for the next chunk if there are enough others, since the pipeline would
        have to wait for them.

        Further frames that arrived in the same burst are left for the next chunk. But if the chunk was complete for
        longer than the interval between frames, the pipeline is behind, and would stay behind; then the chunk is
        spread over all prepared frames, and the others are dropped.
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
        """Mark the frame as prepared, so that a step may take it; return False where it was dropped meanwhile."""
        with self._lock:
            frame.image, frame.ready_at = image, now
            return any(other is frame for other in self._frames)

    def pop_discarded(self) -> list[float]:
        """Return, once, the times of frames that were dropped after they had been prepared."""
        with self._lock:
            discarded, self._discarded = self._discarded, []
            return discarded

    def clear(self) -> None:
        """Drop all frames without counting them."""
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
        """Drop the frame that leaves the smallest gap; the oldest and the newest are kept."""
        times = [arrived.time for arrived in self._frames]
        gaps = [later - earlier for earlier, later in zip(times, times[2:], strict=False)]
        self._drop(1 + gaps.index(min(gaps)))


def to_image(frame: av.VideoFrame) -> Image:
    """Convert a frame to uint8 RGB (height, width, 3), reduced to `_MAX_SHORT_SIDE` if it is larger.

    `describe_shape_problem` must have found no problem with the frame's shape.
    """
    shrink = min(_MAX_SHORT_SIDE / min(frame.width, frame.height), 1.0)
    width, height = round(frame.width * shrink), round(frame.height * shrink)
    image: Image = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()  # type: ignore[assignment]
    return image
