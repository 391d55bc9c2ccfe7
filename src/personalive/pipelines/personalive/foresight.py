"""What was seen in chunks before they are stepped: looking at frames is the CPU's work and need not wait."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, NamedTuple

from personalive.media.types import Frames
from personalive.pipelines.interface import FrameChunk
from personalive.pipelines.personalive.watch import Watch

Seen = tuple[Frames, tuple[bool, ...]]
"""What `Watch.look` gives."""


class _Foreseen(NamedTuple):
    chunk: FrameChunk
    seen: Seen
    before: dict[str, Any]
    """Where the watch was before it looked."""


class Foresight:
    """A watch that may look at chunks ahead of time, on any thread, one at a time and in order."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._lock = threading.Lock()
        self._foreseen: deque[_Foreseen] = deque()

    def prepare(self, chunk: FrameChunk) -> None:
        """Look at it now; `look` will have it."""
        with self._lock:
            before = self._watch.mark()
            self._foreseen.append(_Foreseen(chunk, self._watch.look(chunk), before))

    def look(self, chunk: FrameChunk) -> Seen:
        """What the chunk shows. What was prepared before it and not asked for is forgotten."""
        with self._lock:
            while self._foreseen:
                first = self._foreseen.popleft()
                if first.chunk is chunk:
                    return first.seen
            return self._watch.look(chunk)

    def pause(self) -> dict[str, Any]:
        """As `Watch.pause`, as if nothing had been prepared: that is looked at anew, here and there alike."""
        with self._lock:
            if self._foreseen:
                self._watch.resume(self._foreseen[0].before)
                self._foreseen.clear()
            return self._watch.pause()

    def resume(self, state: dict[str, Any]) -> None:
        """As `Watch.resume`; forgets what was prepared."""
        with self._lock:
            self._foreseen.clear()
            self._watch.resume(state)

    def reset(self) -> None:
        """Forget the driver, and what was prepared."""
        with self._lock:
            self._foreseen.clear()
            self._watch.reset()

    def close(self) -> None:
        """Release the networks. May be called twice."""
        with self._lock:
            self._foreseen.clear()
            self._watch.close()
