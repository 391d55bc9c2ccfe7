"""What targets reported, for tests."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from personalive.live.targets.target import Target
from personalive.pipelines.base import FrameState
from personalive.server.sessions.playout_buffer import SentFrame


@dataclass
class Events:
    """Keeps all that was reported."""

    delivered: list[SentFrame] = field(default_factory=list)
    ended: list[str | None] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def on_delivered(self, target: Target, frame: SentFrame, now: float) -> None:
        self.delivered.append(frame)

    def on_target_end(self, target: Target, problem: str | None) -> None:
        self.ended.append(problem)

    def on_notice(self, notice: str) -> None:
        self.notices.append(notice)

    def on_key(self, key: str) -> None:
        self.keys.append(key)


def grey_frame(level: int, size: tuple[int, int] = (64, 48), time: float = 0.0) -> SentFrame:
    """A grey frame of `size` (width, height)."""
    image = np.full((size[1], size[0], 3), level, np.uint8)
    planes = np.full((size[1] * 3 // 2, size[0]), 128, np.uint8)
    planes[: size[1]] = level
    return SentFrame(image, planes, time, FrameState.ANIMATED, due_at=time, captured_at=time)


class MemoryCamera:
    """A backend of pyvirtualcam that keeps what was sent. `limit`: how many frames it takes before it breaks."""

    frames: list[NDArray[np.uint8]]
    options: dict[str, object]
    closed: int
    limit: int | None
    received: threading.Event

    @classmethod
    def reset(cls, limit: int | None = None) -> None:
        cls.frames, cls.options, cls.closed, cls.limit = [], {}, 0, limit
        cls.received = threading.Event()

    def __init__(self, **options: object) -> None:
        type(self).options = options

    def send(self, frame: NDArray[np.uint8]) -> None:
        if self.limit is not None and len(self.frames) >= self.limit:
            raise RuntimeError("the device is gone")
        self.frames.append(frame.copy())
        self.received.set()

    def close(self) -> None:
        type(self).closed += 1

    def device(self) -> str:
        return "memory"

    def native_fourcc(self) -> None:
        return None
