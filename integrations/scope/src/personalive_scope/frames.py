"""Conversion between Scope's frames and timestamps and the package's.

Scope passes a list of tensors (1, height, width, 3), 0…255, and takes one tensor (frames, height, width, 3), 0…1. A
timestamp is a number of ticks, `pts`, of `time_base` seconds each; either is None where it is unknown.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from personalive.media import Image
from personalive.media.types import Frames


def to_images(video: Sequence[Tensor]) -> list[Image]:
    """Return Scope's frames as uint8 RGB (height, width, 3)."""
    return [
        np.ascontiguousarray(
            frame.reshape(frame.shape[-3:])[..., :3].detach().clamp(0, 255).to("cpu", torch.uint8).numpy()
        )
        for frame in video
    ]


def to_video(images: Frames) -> Tensor:
    """Return frames as Scope takes them, on the CPU."""
    return torch.from_numpy(images).to(torch.float32).div_(255.0)


class Clock:
    """Gives each driving frame a time that never decreases, and gives its timestamp back to its result."""

    def __init__(self) -> None:
        self._last = float("-inf")
        self._stamps: dict[float, Any] = {}

    def read(self, stamps: Sequence[Any], count: int) -> NDArray[np.float64]:
        """Return the times of `count` frames in seconds: by their timestamps, or else when they arrived."""
        given = list(stamps)[:count] + [None] * (count - len(stamps))
        times = []
        for stamp in given:
            ticks, base = getattr(stamp, "pts", None), getattr(stamp, "time_base", None)
            found = time.monotonic() if ticks is None or base is None else float(ticks * base)
            self._last = max(found, self._last)
            self._stamps[self._last] = stamp
            times.append(self._last)
        return np.array(times, np.float64)

    def stamps_for(self, times: NDArray[np.float64]) -> list[Any]:
        """Return the timestamps of the frames of these times, and forget those of earlier ones."""
        found = [self._stamps.get(float(moment)) for moment in times]
        if len(times):
            self._stamps = {key: value for key, value in self._stamps.items() if key >= times[-1]}
        return found
