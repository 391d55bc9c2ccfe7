"""A limit on the messages of one WebSocket."""

from __future__ import annotations


class MessageRateLimit:
    """A token bucket: `PER_SECOND` messages a second, and as many more at once after a quiet time."""

    PER_SECOND = 250
    """A camera of 60 frames a second, an acknowledgement of each frame that comes back, sound in packets of 10 or
    20 ms, and room for a burst."""

    def __init__(self, now: float) -> None:
        """Begin with a full bucket. `now` is in seconds of a monotonic clock."""
        self._left = 2.0 * self.PER_SECOND
        self._at = now

    def take(self, now: float) -> bool:
        """Count a message; return whether it may still be processed."""
        self._left = min(2.0 * self.PER_SECOND, self._left + self.PER_SECOND * (now - self._at))
        self._at = now
        self._left -= 1
        return self._left >= 0
