"""Deinterlacing: frames that hold two moments in alternating lines become frames of one moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import av
import av.error
from av.filter import Graph

_CLOCK = Fraction(1, 1000)


def deinterlace(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """Yield the frames, deinterlaced where they are flagged as interlaced, each with its original timestamps.

    From the first interlaced frame on, frames are delayed by one, since the filter uses the next. Frames that the
    filter does not accept, with only a few lines, stay unchanged.
    """
    current: _Deinterlacer | None = None
    for frame in frames:
        if current is not None and not current.accepts(frame):
            yield from current.finish()
            current = None
        if current is None and frame.interlaced_frame:
            current = _create_deinterlacer(frame)
        if current is None:
            yield frame
        else:
            yield from current.push(frame)
    if current is not None:
        yield from current.finish()


class _Deinterlacer:
    """FFmpeg's bwdif filter for frames of one size and format: it returns as many as it takes, in order."""

    def __init__(self, like: av.VideoFrame) -> None:
        self._kind = _frame_format(like)
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=like.width, height=like.height, format=like.format, time_base=_CLOCK
        )
        # One frame per frame, not per field, keeps the rate. Frames not flagged pass unchanged.
        bwdif = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
        source.link_to(bwdif)
        bwdif.link_to(self._graph.add("buffersink"))
        self._graph.configure()
        self._inside: deque[tuple[int | None, int | None, int | None]] = deque()
        self._count = 0

    def accepts(self, frame: av.VideoFrame) -> bool:
        return _frame_format(frame) == self._kind

    def push(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        self._inside.append((frame.pts, frame.dts, frame.duration))
        # The filter needs increasing times; the frames' own may not increase.
        frame.pts, frame.time_base = self._count, _CLOCK
        self._count += 1
        self._graph.push(frame)
        yield from self._drain()

    def finish(self) -> Iterator[av.VideoFrame]:
        self._graph.push(None)
        yield from self._drain()

    def _drain(self) -> Iterator[av.VideoFrame]:
        while self._inside:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert isinstance(frame, av.VideoFrame)
            frame.pts, frame.dts, duration = self._inside.popleft()
            frame.duration = duration or 0
            yield frame


def _create_deinterlacer(frame: av.VideoFrame) -> _Deinterlacer | None:
    try:
        return _Deinterlacer(frame)
    except (av.error.FFmpegError, ValueError):
        return None


def _frame_format(frame: av.VideoFrame) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name
