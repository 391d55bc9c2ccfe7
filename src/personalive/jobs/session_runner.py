"""Runs driving frames through a session, so that output frame i shows driving frame i and there are as many."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from personalive.jobs.background_io import BackgroundReader
from personalive.media import Image, VideoFrame
from personalive.pipelines.base import AnimatedChunk, FrameChunk, FrameState, PipelineInfo, Session


@dataclass(frozen=True, slots=True, eq=False)
class AnimatedFrame:
    """A driving frame and its result."""

    driving: Image
    animated: Image
    state: FrameState


@contextmanager
def prefetch_frames(
    session: Session[Any], frames: Iterable[VideoFrame], *, ahead: int
) -> Iterator[Iterable[VideoFrame]]:
    """Prepare `frames` for the session's steps on a thread that starts now, at most `ahead` frames in advance."""
    if type(session).prepare is Session.prepare:
        yield frames
        return
    with BackgroundReader(_prepare_frames(session, frames), ahead=ahead) as reader:
        reader.start()
        yield reader


def _prepare_frames(session: Session[Any], frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    for frame in frames:
        session.prepare(frame.image, frame.time)
        yield frame


def run_session(
    session: Session[Any],
    info: PipelineInfo,
    frames: Iterable[VideoFrame],
    call_lock: AbstractContextManager[object] | None = None,
) -> Iterator[AnimatedFrame]:
    """Animate `frames`, all of one size and evenly spaced, and yield each with its result, in order."""
    return SessionRunner(session, info, frames, call_lock).iter_results()


class SessionRunner:
    """Runs driving frames through a session, in one go or in parts.

    It handles the pipeline's delay and flushes it at the end, drops transition frames, and where chunks have an
    exact size fills the last one up by repeating its last frame. Driving frames are held until their result is
    there: a chunk of them and the pipeline's delay.
    """

    def __init__(
        self,
        session: Session[Any],
        info: PipelineInfo,
        frames: Iterable[VideoFrame],
        call_lock: AbstractContextManager[object] | None = None,
    ) -> None:
        """Run `frames` through `session`; `call_lock` is held during each step."""
        self._session = session
        self._call_lock = call_lock or nullcontext()
        self._info = info
        self._frames = iter(frames)
        self._matcher = _FrameMatcher()
        self.consumed = 0
        """How many driving frames the session has had."""
        self.finished = False
        """Whether the last result has been yielded."""

    @property
    def padding(self) -> int:
        """How many of the frames that wait for their result are padding of the last chunk."""
        return self._matcher.padding

    def resume_at(self, done: int, waiting: list[VideoFrame], padding: int) -> None:
        """Continue where another runner was: after `done` results, with `waiting` driving frames and `padding`."""
        self.consumed = done + len(waiting)
        self._matcher.add_pending(waiting, padding)

    def iter_results(self, at_least: int | None = None) -> Iterator[AnimatedFrame]:
        """Yield the next results, of whole steps, until there are `at_least` this many; by default all."""
        given = 0
        while at_least is None or given < at_least:
            for driven in self._step():
                given += 1
                yield driven
            if self.finished:
                return

    def _step(self) -> Iterator[AnimatedFrame]:
        frames = list(itertools.islice(self._frames, self._info.chunk_frames))
        if frames:
            padding = self._info.chunk_frames - len(frames) if self._info.exact_chunks else 0
            self.consumed += len(frames)
            self._matcher.add_pending(frames, padding)
            with self._call_lock:
                animated = self._session.step(_make_chunk(frames, padding))
            yield from self._matcher.match(animated)
            return
        with self._call_lock:
            rest = self._session.flush()
        if rest is not None:
            yield from self._matcher.match(rest)
        self._matcher.check_complete()
        self.finished = True


class _FrameMatcher:
    """Matches results to the driving frames that wait for them; padding is queued as None."""

    def __init__(self) -> None:
        self._pending: deque[Image | None] = deque()

    @property
    def padding(self) -> int:
        return sum(driving is None for driving in self._pending)

    def add_pending(self, batch: list[VideoFrame], padding: int) -> None:
        self._pending.extend(frame.image for frame in batch)
        self._pending.extend([None] * padding)

    def match(self, chunk: AnimatedChunk) -> Iterator[AnimatedFrame]:
        for animated, state in zip(chunk.images, chunk.states, strict=True):
            if state is FrameState.TRANSITION:
                continue
            if not self._pending:
                raise RuntimeError("the pipeline returned more frames than it was given")
            driving = self._pending.popleft()
            if driving is not None:
                yield AnimatedFrame(driving, animated, state)

    def check_complete(self) -> None:
        missing = sum(driving is not None for driving in self._pending)
        if missing:
            raise RuntimeError(f"the pipeline did not return {missing} frames")


def _make_chunk(batch: list[VideoFrame], padding: int) -> FrameChunk:
    last = batch[-1]
    images = [frame.image for frame in batch] + [last.image] * padding
    later = [last.time + last.duration * (k + 1) for k in range(padding)]
    return FrameChunk(images, np.array([frame.time for frame in batch] + later, np.float64))
