"""Analyzes driving frames before the step that takes them: finding a face is CPU work that can run in parallel.

A session owns one `Prefetcher`. One thread analyzes frames as they arrive or are decoded, another steps the session
and gets the results in the same order.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from personalive.media.types import Image

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class FrameAnalyzer(Protocol[T_co]):
    """Analyzes the frames of one driver in order and remembers what the next frame needs."""

    def analyze(self, image: Image, time: float) -> T_co:
        """Analyze the next frame and return the result; `image` uint8 RGB (H, W, 3), `time` in seconds."""

    def state(self) -> dict[str, Any]:
        """Return the state that `restore` needs, as JSON values, without changing it."""

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`, with the face to be detected again."""

    def reset(self) -> None:
        """Forget the driver."""

    def close(self) -> None:
        """Release the networks. May be called twice."""


@dataclass(frozen=True, slots=True, eq=False)
class _PrefetchedFrame(Generic[T]):
    image: Image
    time: float
    result: T
    state_before: dict[str, Any]
    """The analyzer's state before it analyzed this frame."""


class Prefetcher(Generic[T]):
    """An analyzer whose results may be prepared on another thread. Thread-safe."""

    def __init__(self, analyzer: FrameAnalyzer[T]) -> None:
        self._analyzer = analyzer
        self._analyze_lock = threading.Lock()
        # A second lock, so that a step need not wait until the newest frame has been analyzed.
        self._queue = threading.Lock()
        self._prepared: deque[_PrefetchedFrame[T]] = deque()

    def __len__(self) -> int:
        return len(self._prepared)

    def prepare(self, image: Image, time: float) -> None:
        """Analyze a frame now; `get` returns the result. Frames are prepared in order, each at most once."""
        with self._analyze_lock:
            self._append(self._analyze(image, time))

    def discard(self, time: float) -> None:
        """Drop the result for the frame of this time, which no step will take."""
        with self._queue:
            for item in self._prepared:
                if item.time == time:
                    self._prepared.remove(item)
                    return

    def get(self, image: Image, time: float) -> T:
        """Return the result for a frame, prepared or not. Results for earlier frames are dropped."""
        found = self._pop(time)
        if found is None:
            with self._analyze_lock:
                # It may have been analyzed while this thread waited for the lock.
                found = self._pop(time) or self._analyze(image, time)
        return found.result

    def save_state(self) -> dict[str, Any]:
        """Return the state that `restore_state` needs to continue after the last frame that `get` returned.

        The face is detected again afterwards, in this session and in the continued one, so that both give the same
        result. Prepared frames are analyzed again at once.
        """
        with self._analyze_lock:
            ahead = self._clear()
            state = ahead[0].state_before if ahead else self._analyzer.state()
            self._analyzer.restore(state)
            for item in ahead:
                self._append(self._analyze(item.image, item.time))
            return state

    def restore_state(self, state: dict[str, Any]) -> None:
        """Continue from a `state` that `save_state` returned. Drops prepared results."""
        with self._analyze_lock:
            self._clear()
            self._analyzer.restore(state)

    def reset(self) -> None:
        """Forget the driver and the prepared results."""
        with self._analyze_lock:
            self._clear()
            self._analyzer.reset()

    def close(self) -> None:
        """Release the networks. May be called twice."""
        with self._analyze_lock:
            self._clear()
            self._analyzer.close()

    def _append(self, item: _PrefetchedFrame[T]) -> None:
        with self._queue:
            self._prepared.append(item)

    def _pop(self, time: float) -> _PrefetchedFrame[T] | None:
        """Remove and return the prepared frame of that time, dropping earlier ones."""
        with self._queue:
            while self._prepared and self._prepared[0].time <= time:
                first = self._prepared.popleft()
                if first.time == time:
                    return first
        return None

    def _clear(self) -> list[_PrefetchedFrame[T]]:
        """Remove and return all prepared frames."""
        with self._queue:
            dropped = list(self._prepared)
            self._prepared.clear()
            return dropped

    def _analyze(self, image: Image, time: float) -> _PrefetchedFrame[T]:
        before = self._analyzer.state()
        return _PrefetchedFrame(image, time, self._analyzer.analyze(image, time), before)
