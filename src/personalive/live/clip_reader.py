"""A clip as if it were a camera: at its own pace, again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from personalive.jobs.driving_clip import open_driving_clip
from personalive.live.clip_sound import ClipSound, SoundHandler
from personalive.media import Rotation
from personalive.media.rotation import check_rotation

_TIME_BASE = Fraction(1, 1_000_000)
_MIN_CLIP_S = 0.04
"""Seconds from one beginning of the clip to the next at least, such as a still's."""
_SOUND_AHEAD_S = 0.5
"""Seconds by which sound is read before its picture is shown: it waits in a buffer of the session."""


class ClipReader:
    """Reads the frames of a file that is on this machine, in a loop."""

    def __init__(
        self,
        path: Path,
        rotation: Rotation,
        stopping: threading.Event,
        on_sound: SoundHandler | None = None,
    ) -> None:
        """Open the clip, turned by `rotation`, until `stopping` is set; `on_sound` gets its sound while it is read.

        Raises `InputError` or a subclass.
        """
        check_rotation(rotation)
        self._path = path
        self._stopping = stopping
        self._sound = None if on_sound is None else ClipSound(path, on_sound)
        try:
            self._clip = open_driving_clip(path, start=0.0, end=None, rotation=rotation)
        except BaseException:
            self._close_sound()
            raise
        self._length = self._clip.source.info.duration
        self._rewound = False
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
                end = frame.time + frame.duration
                if now <= due + frame.duration:
                    if self._stopping.wait(max(due - now, 0.0)):
                        return
                    shown = av.VideoFrame.from_ndarray(frame.image, format="rgb24")
                    shown.pts, shown.time_base = round((offset + frame.time) / _TIME_BASE), _TIME_BASE
                    yield shown
                self._play_sound(end, offset)
            # The clip begins again at its end, or now where decoding has fallen behind.
            end = max(end, _MIN_CLIP_S)
            offset = max(offset + end, time.monotonic() - begin)
            if self._sound is not None and not self._rewound:
                self._sound.rewind()
            self._length, self._rewound = end, False

    def _play_sound(self, end: float, offset: float) -> None:
        """Pass sound on until some time after `end`, in the clip's seconds; after its end comes its beginning."""
        if self._sound is None:
            return
        ahead, length = end + _SOUND_AHEAD_S, self._length
        if length is None or ahead <= length:
            self._sound.play_until(end if length is None else ahead, offset)
            return
        if not self._rewound:
            self._sound.play_until(length, offset)
            self._sound.rewind()
            self._rewound = True
        self._sound.play_until(min(ahead - length, length), offset + length)

    def _close_sound(self) -> None:
        if self._sound is not None:
            self._sound.close()

    def close(self) -> None:
        """Close the file."""
        self._close_sound()
        self._clip.source.close()
