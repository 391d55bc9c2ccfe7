"""Reading of driving frames from a video, an animation, a folder of pictures or a still."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from personalive.closing import Closing
from personalive.errors import InputError, MediaError
from personalive.media.container_source import ContainerSource
from personalive.media.image import is_image_file
from personalive.media.picture_sources import (
    FrameSource,
    SequenceSource,
    StillSource,
    TimedImage,
    open_picture_source,
)
from personalive.media.rotation import QUARTERS, rotate_image
from personalive.media.types import VideoFrame, VideoInfo
from personalive.media.user_paths import check_is_file_or_folder, is_folder

# Seconds: containers round times, Matroska to the millisecond.
_TOLERANCE = 0.001


class VideoReader(Closing):
    """A reader of the frames shown from `start` until `end`, one at a time: memory does not grow with length.

    It takes MP4, MOV, M4V, WebM, MKV, AVI and GIF files, animated WebP and PNG, a folder of numbered PNG, JPEG
    or WebP pictures (25 per second), and a still picture (one frame). Frames are upright as far as the file
    says, have square pixels and one size, that of the first; those of another shape are fitted into it. Times are
    those of the file, whether or not the rate varies, and always increase. If `start` falls within a frame's time
    that frame comes first, with `start` as its time. A still has no time: it is delivered for any span.

    Iterating again reads again from `start`. `warnings` says what was wrong with the frames read last.

    Args:
        path: A file or folder.
        start: Seconds from the start of the stream.
        end: Seconds from the start of the stream, exclusive; None for all there is.
        max_frames: Deliver at most this many.
        rotate: Turn the frames clockwise by 0, 90, 180 or 270 degrees in addition to the file's rotation.

    Raises:
        InputError: the span or the rotation is invalid.
        MediaError: the file or folder cannot be read, or has no frame in the span; see its subclasses.

    """

    def __init__(
        self,
        path: str | Path,
        *,
        start: float = 0.0,
        end: float | None = None,
        max_frames: int | None = None,
        rotate: int = 0,
    ) -> None:
        if rotate not in QUARTERS:
            raise InputError(f"Frames can be rotated by 0, 90, 180 or 270 degrees, not {rotate!r}.")
        _check_span(start, end, max_frames)
        self._path = Path(path)
        self._start, self._end, self._max_frames = start, end, max_frames
        self._rotate = rotate
        self._closed = False
        self._seen_until = 0.0
        self.warnings: list[str] = []
        self._source = _open_source(self._path)
        self._opening_warnings = tuple(self._source.warnings)
        self.warnings.extend(self._opening_warnings)

    @property
    def info(self) -> VideoInfo:
        """Size, rate and length of the whole file, not only of the span."""
        info = self._source.info
        width, height = (info.height, info.width) if self._rotate % 180 else (info.width, info.height)
        return replace(info, width=width, height=height, rotation=(info.rotation + self._rotate) % 360)

    def __iter__(self) -> Iterator[VideoFrame]:
        self._source.warnings[:] = self._opening_warnings
        self.warnings[:] = self._opening_warnings
        end_reached = 0.0
        count = 0
        for shown, duration in self._frames_in_span():
            time = max(shown.time, self._start)
            end_reached = shown.time + duration
            image = rotate_image(shown.image(), self._rotate)
            yield VideoFrame(image, time, count, end_reached - time)
            count += 1
        self.warnings.extend(self._source.warnings[len(self._opening_warnings) :])
        if self._source.ended_early:
            self.warnings.append(self._describe_damage(end_reached, count))
        elif self._source.lost_frames:
            lost = "one frame" if self._source.lost_frames == 1 else f"{self._source.lost_frames} frames"
            self.warnings.append(f"{self._path.name} is damaged: {lost} could not be decoded.")
        if not count:
            raise MediaError(self._describe_empty_span())

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        self._closed = True
        self._source.close()

    def _frames_in_span(self) -> Iterator[tuple[TimedImage, float]]:
        """Yield the pictures in the span with their durations, each known once the next picture has come."""
        if self._closed:
            raise MediaError(f"{self._path.name} has been closed.")
        still = isinstance(self._source, StillSource)
        end = math.inf if self._end is None or still else self._end
        left = math.inf if self._max_frames is None else self._max_frames
        held: TimedImage | None = None
        self._seen_until = 0.0
        for shown in self._source.frames(self._start):
            if self._closed:
                return
            self._seen_until = shown.time + shown.duration
            if held is not None and shown.time > self._start + _TOLERANCE:
                yield held, min(shown.time, end) - held.time
                left -= 1
            if left <= 0 or shown.time >= end - _TOLERANCE:
                return
            held = shown
        if held is not None and held.time + held.duration > self._start + _TOLERANCE:
            yield held, min(held.time + held.duration, end) - held.time

    def _describe_empty_span(self) -> str:
        # The length seen in reading is more reliable than the header's.
        length = self._seen_until or self.info.duration
        if length is None:
            return f"{self._path.name} has no frames after {self._start:g} s."
        return f"{self._path.name} is {length:.2f} s long: there is nothing after {self._start:g} s."

    def _describe_damage(self, time: float, count: int) -> str:
        frames = "the one frame before that is" if count == 1 else f"the {count} frames before that are"
        return f"{self._path.name} is damaged after {time:.1f} s: {frames} used."


open_driving = VideoReader
"""Opens a video, an animation, a folder of pictures or a still to drive from.

A still is a clip of one frame, at time 0 of 25 frames per second.
"""


def _open_source(path: Path) -> FrameSource:
    check_is_file_or_folder(path)
    if is_folder(path):
        return SequenceSource(path)
    return open_picture_source(path) if is_image_file(path) else ContainerSource(path)


def _check_span(start: float, end: float | None, max_frames: int | None) -> None:
    if not math.isfinite(start) or start < 0:
        raise InputError(f"The start must be 0 seconds or later, not {start:g}.")
    if end is not None and (math.isnan(end) or end <= start):
        raise InputError(f"The end ({end:g} s) must come after the start ({start:g} s).")
    if max_frames is not None and max_frames < 1:
        raise InputError(f"At least one frame must be read, not {max_frames}.")
