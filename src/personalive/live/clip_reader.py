"""A clip as if it were a camera: at its own pace, again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from personalive.jobs.driving_clip import open_driving_clip
from personalive.media import Rotation
from personalive.media.rotation import check_rotation

_TIME_BASE = Fraction(1, 1_000_000)
_MIN_LENGTH_S = 0.04
"""Seconds that a frame lasts where the clip says nothing, such as a still."""


class ClipReader:
    """Reads the frames of a file that is on this machine, in a loop."""

    def __init__(self, path: Path, rotation: Rotation, stopping: threading.Event) -> None:
        """Open the clip, turned by `rotation`, until `stopping` is set. Raises `InputError` or a subclass."""
        check_rotation(rotation)
        self._path = path
        self._stopping = stopping
        self._clip = open_driving_clip(path, start=0.0, end=None, rotation=rotation)
        self.notes = (*self._clip.notes, *self._clip.warnings)

    @property
    def repeats(self) -> bool:
        """Whether reading goes on at the end."""
        return True

    def __iter__(self) -> Iterator[av.VideoFrame]:
        """Yield each frame when it is due. A frame that is decoded too late is left out."""
        begin = offset = 0.0
        begun = False
        while not self._stopping.is_set():
            end = 0.0
            for frame in self._clip.source:
                now = time.monotonic()
                if not begun:
                    begin, begun = now - frame.time, True
                due = begin + offset + frame.time
                length = max(frame.duration, _MIN_LENGTH_S)
                end = frame.time + length
                if now > due + length:
                    continue
                if self._stopping.wait(max(due - now, 0.0)):
                    return
                shown = av.VideoFrame.from_ndarray(frame.image, format="rgb24")
                shown.pts, shown.time_base = round((offset + frame.time) / _TIME_BASE), _TIME_BASE
                yield shown
            # The clip begins again at its end, or now where decoding has fallen behind.
            offset = max(offset + end, time.monotonic() - begin)

    def close(self) -> None:
        """Close the file."""
        self._clip.source.close()
