"""What a client saw: which frame came when, what it was told, and figures of that."""

from __future__ import annotations

import itertools
import json
import statistics
from bisect import bisect_right
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A frame as it came, and the `number` in it, None where none can be read.

    Times are in seconds of the client's clock.
    """

    number: int | None
    captured: float | None
    received: float
    width: int
    height: int


@dataclass
class Report:
    """All of one session. `messages` are those of the data channel, each with the time it came."""

    fps: float = 0.0
    captured: list[float] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    messages: list[tuple[float, Message]] = field(default_factory=list)
    codec: str | None = None
    ended: str | None = None
    """Why the client left: the peer's state, or None if it left as planned."""

    def told(self, kind: str) -> list[Message]:
        """Messages of that type, in order."""
        return [message for _, message in self.messages if message.get("type") == kind]

    def between(self, begin: float, end: float) -> Report:
        """The part from `begin` to `end`, seconds since the first frame that came."""
        first = self.seen[0].received if self.seen else 0.0
        return self.within(first + begin, first + end)

    def within(self, low: float, high: float) -> Report:
        """The part between two times of the client's clock."""
        return Report(
            self.fps,
            self.captured,
            [seen for seen in self.seen if low <= seen.received < high],
            [(at, message) for at, message in self.messages if low <= at < high],
            self.codec,
            self.ended,
        )

    @property
    def read(self) -> list[Seen]:
        """The frames whose number was read."""
        return [seen for seen in self.seen if seen.number is not None]

    @property
    def numbers(self) -> list[int]:
        """The numbers that were read, in order of their coming."""
        return [seen.number for seen in self.seen if seen.number is not None]

    @property
    def first_shown(self) -> list[Seen]:
        """Of each number its first frame: a server repeats a picture that stands still."""
        shown: dict[int, Seen] = {}
        for seen in self.read:
            shown.setdefault(seen.number or 0, seen)
        return list(shown.values())

    @property
    def delays(self) -> list[float]:
        """Seconds from capture to display, of each number that came."""
        return [seen.received - (seen.captured or 0.0) for seen in self.first_shown]

    @property
    def delays_in_frames(self) -> list[int]:
        """How many frames the camera had captured since, when a number came."""
        return [
            bisect_right(self.captured, seen.received) - 1 - (seen.number or 0) for seen in self.first_shown
        ]

    @property
    def rate(self) -> float:
        """Frames per second that came."""
        if len(self.seen) < 2:
            return 0.0
        return (len(self.seen) - 1) / (self.seen[-1].received - self.seen[0].received)

    @property
    def gaps(self) -> list[float]:
        """Seconds between one frame and the next."""
        return [later.received - earlier.received for earlier, later in itertools.pairwise(self.seen)]

    def backwards(self) -> int:
        """How many frames showed an older number than one before."""
        return sum(later < earlier for earlier, later in itertools.pairwise(self.numbers))

    @property
    def latencies(self) -> list[float]:
        """The server's own p95 from capture to send in seconds, as told each second, over ten seconds each."""
        told = (message["latency_ms"]["p95"] for message in self.told("stats"))
        return [float(value) / 1000 for value in told if value is not None]

    def summary(self) -> dict[str, float | int | str | None]:
        """The figures to print: times in ms."""
        delays, frames = self.delays, self.delays_in_frames
        return {
            "captured": len(self.captured),
            "received": len(self.seen),
            "read": len(self.read),
            "backwards": self.backwards(),
            "fps": round(self.rate, 2),
            "delay_p50": round(1000 * quantile(delays, 0.5), 1) if delays else None,
            "delay_p95": round(1000 * quantile(delays, 0.95), 1) if delays else None,
            "delay_frames": statistics.median(frames) if frames else None,
            "longest_gap": round(1000 * max(self.gaps, default=0.0), 1),
            "codec": self.codec,
            "ended": self.ended,
        }

    def save(self, path: Path) -> None:
        """As JSON, for another process."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Report:
        """What `save` wrote."""
        given = json.loads(path.read_text())
        given["seen"] = [Seen(**seen) for seen in given["seen"]]
        given["messages"] = [(at, message) for at, message in given["messages"]]
        return cls(**given)


def quantile(values: list[float], share: float) -> float:
    """The value that this share of them stays below."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
