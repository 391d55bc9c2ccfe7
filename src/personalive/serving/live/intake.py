"""Driving frames on their way in: a bounded queue in which the newest win, thinned evenly when there are too many.

A camera faster than the pipeline must not build up a backlog, nor lose its frames in bursts: what is kept is spread
as evenly over time as can be, and always ends with the newest frame.
"""

from __future__ import annotations

import threading
from collections import deque

import av

from personalive.media.types import Image

_JUMP = 1.0
"""Seconds by which a source's clock may run away from ours before it counts as another clock."""
_SLEW = 1e-3
"""Part by which a source's clock may be faster or slower than ours for as long as it streams."""
_OLDEST = 1.5
"""Seconds that a frame may wait: what a driver did before that is of no interest any more."""
_LARGEST_SHORT_SIDE = 720
"""Of a frame that is looked at. No face is found better in a larger one, and converting it takes longer."""


class Arrived:
    """A driving frame: `time` in seconds of the source's clock, `at` in seconds of ours, when it came."""

    __slots__ = ("_image", "_lock", "at", "frame", "time")

    def __init__(self, frame: av.VideoFrame, time: float, at: float) -> None:
        self.frame, self.time, self.at = frame, time, at
        self._image: Image | None = None
        self._lock = threading.Lock()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.frame.width, self.frame.height

    def image(self) -> Image:
        """The frame as a picture, see `to_image`; made once, on whichever thread asks first."""
        with self._lock:
            if self._image is None:
                self._image = to_image(self.frame)
            return self._image


class SourceClock:
    """A source's own time, kept increasing whatever its timestamps do.

    Timestamps space frames more evenly than the network does, but sources are replaced, restart and jump.
    """

    def __init__(self) -> None:
        self._offset: float | None = None
        self._start = 0.0  # the time of our clock at which the source's time is zero
        self._last = 0.0
        self._last_at = 0.0

    def read(self, stamp: float | None, at: float) -> float:
        """Seconds since the first frame, for a frame stamped `stamp` that came at `at`."""
        if self._offset is None:
            self._offset = 0.0 - (stamp or 0.0)
            self._start = self._last_at = at
            return 0.0
        expected = at - self._start
        time = expected if stamp is None else stamp + self._offset
        if time <= self._last or abs(time - expected) > _JUMP:
            time = max(expected, self._last + 1e-3)
            if stamp is not None:
                self._offset = time - stamp
        slew = _SLEW * (at - self._last_at)
        self._start += min(max(expected - time, -slew), slew)
        self._last, self._last_at = time, at
        return time


class Intake:
    """Holds two chunks of `chunk_frames` at most. Any thread may put and take."""

    def __init__(self, chunk_frames: int) -> None:
        self._chunk = chunk_frames
        self._capacity = 2 * chunk_frames
        self._frames: deque[Arrived] = deque()
        self._lock = threading.Lock()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def ready(self) -> bool:
        """Whether a chunk is there."""
        return len(self._frames) >= self._chunk

    def put(self, arrived: Arrived) -> None:
        """Add a frame; another one goes if there is no room, and all go that have another size."""
        with self._lock:
            if self._frames and self._frames[-1].size != arrived.size:
                self.dropped += len(self._frames)
                self._frames.clear()
            self._frames.append(arrived)
            while arrived.at - self._frames[0].at > _OLDEST:
                self._frames.popleft()
                self.dropped += 1
            if len(self._frames) > self._capacity:
                self._thin()

    def take(self, now: float) -> list[Arrived] | None:
        """A chunk, oldest first, or None if there is none; `now` is the time of our clock.

        What came with the chunk in a burst is left for the next one. But if the chunk was complete for longer than
        a frame's time, the pipeline is behind, and would stay so: then the chunk is spread over all that is there.
        """
        with self._lock:
            count = len(self._frames)
            if count < self._chunk:
                return None
            if not self._is_behind(now):
                return [self._frames.popleft() for _ in range(self._chunk)]
            chosen = [(k + 1) * count // self._chunk - 1 for k in range(self._chunk)]
            frames = [self._frames[index] for index in chosen]
            self.dropped += count - self._chunk
            self._frames.clear()
            return frames

    def _is_behind(self, now: float) -> bool:
        surplus = len(self._frames) - self._chunk
        if surplus == 0:
            return False
        interval = (self._frames[-1].time - self._frames[0].time) / (len(self._frames) - 1)
        return surplus >= self._chunk or now - self._frames[self._chunk - 1].at > interval

    def prepare(self, arrived: Arrived) -> None:
        """Make this frame's picture ahead of its being taken, unless it is gone by now."""
        with self._lock:
            waits = any(other is arrived for other in self._frames)
        if waits:
            arrived.image()

    def clear(self) -> None:
        """Drop what is there, uncounted."""
        with self._lock:
            self._frames.clear()

    def _thin(self) -> None:
        """Drop the frame that leaves the smallest gap behind: neither the oldest nor the newest."""
        times = [arrived.time for arrived in self._frames]
        gaps = [later - earlier for earlier, later in zip(times, times[2:], strict=False)]
        del self._frames[1 + gaps.index(min(gaps))]
        self.dropped += 1


def to_image(frame: av.VideoFrame) -> Image:
    """The frame as uint8 RGB (height, width, 3), made smaller if it is very large."""
    shrink = min(_LARGEST_SHORT_SIDE / min(frame.width, frame.height), 1.0)
    width, height = round(frame.width * shrink), round(frame.height * shrink)
    image: Image = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()  # type: ignore[assignment]
    return image
