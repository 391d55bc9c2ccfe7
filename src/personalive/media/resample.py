"""Resampling of frames with arbitrary times to a constant rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from personalive.errors import InputError
from personalive.media.types import VideoFrame

# Containers round times (Matroska to the millisecond). A frame that begins within this share of an output frame
# after the tick counts as shown, or 30 fps read from WebM would stutter.
_TOLERANCE = 0.1


def resample(frames: Iterable[VideoFrame], fps: float) -> Iterator[VideoFrame]:
    """Repeat and drop frames so that they come at exactly `fps` per second.

    At each tick k / fps, counted from the first frame's time, the frame shown at that moment is delivered: the
    latest that has begun. The result is as long as the input, to within one frame, and has at least one frame if
    the input has any. `index` is k, `time` is k / fps, `duration` is 1 / fps; repeats share their image. Two frames
    are held at a time.

    Raises:
        InputError: `fps` is not a positive number.

    """
    if not math.isfinite(fps) or fps <= 0:
        raise InputError(f"The frame rate must be a positive number, not {fps:g}.")
    return _resample(frames, fps)


def _resample(frames: Iterable[VideoFrame], fps: float) -> Iterator[VideoFrame]:
    ticks = 0
    origin = 0.0
    held: VideoFrame | None = None
    for frame in frames:
        if held is None:
            origin = frame.time
        else:
            until = _ticks_before(frame.time - origin, fps)
            yield from _repeat_frame(held, ticks, until, fps)
            ticks = max(ticks, until)
        held = frame
    if held is not None:
        until = max(1, _ticks_before(held.time + held.duration - origin, fps))
        yield from _repeat_frame(held, ticks, until, fps)


def _ticks_before(time: float, fps: float) -> int:
    return math.ceil(time * fps - _TOLERANCE)


def _repeat_frame(frame: VideoFrame, first: int, until: int, fps: float) -> Iterator[VideoFrame]:
    for tick in range(first, until):
        yield VideoFrame(frame.image, tick / fps, tick, 1 / fps)
