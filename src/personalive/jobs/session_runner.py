"""Driving frames through a session, so that output frame i shows driving frame i and there are as many."""

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
    """A driving frame and what came of it."""

    driving: Image
    animated: Image
    state: FrameState


@contextmanager
def prefetch_frames(
    session: Session[Any], frames: Iterable[VideoFrame], *, ahead: int
) -> Iterator[Iterable[VideoFrame]]:
    """Prepare `frames` for the session's steps, on a thread that begins now, at most `ahead` frames in advance."""
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
    """Takes driving frames through a session, in one go or piece by piece.

    A delay is waited for and flushed out, lead-in frames are dropped, and where chunks must be whole the last
    is filled up by repeating its last frame. Driving frames are held until their result is there: a chunk and
    the pipeline's delay of them.
    """

    def __init__(
        self,
        session: Session[Any],
        info: PipelineInfo,
        frames: Iterable[VideoFrame],
        call_lock: AbstractContextManager[object] | None = None,
    ) -> None:
        """`call_lock` is entered for each step, and again for the next."""
        self._session = session
        self._call_lock = call_lock or nullcontext()
        self._info = info
        self._frames = iter(frames)
        self._matcher = _FrameMatcher()
        self.consumed = 0
        """Driving frames that the session has had."""
        self.finished = False
        """Whether the last result was given."""

    @property
    def padding(self) -> int:
        """How many of the frames that wait for their result only fill up the last chunk."""
        return self._matcher.padding

    def resume_at(self, done: int, waiting: list[VideoFrame], padding: int) -> None:
        """Be where another drive was: `done` results given, then `waiting` driving frames and `padding`."""
        self.consumed = done + len(waiting)
        self._matcher.add_pending(waiting, padding)

    def iter_results(self, at_least: int | None = None) -> Iterator[AnimatedFrame]:
        """Yield the next results, of whole steps, until there are `at_least` so many; by default all."""
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
    """Matches results to the driving frames that wait for theirs; padding waits as None."""

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
                raise RuntimeError("the pipeline gave back more frames than went in")
            driving = self._pending.popleft()
            if driving is not None:
                yield AnimatedFrame(driving, animated, state)

    def check_complete(self) -> None:
        missing = sum(driving is not None for driving in self._pending)
        if missing:
            raise RuntimeError(f"the pipeline kept {missing} frames to itself")


def _make_chunk(batch: list[VideoFrame], padding: int) -> FrameChunk:
    last = batch[-1]
    images = [frame.image for frame in batch] + [last.image] * padding
    later = [last.time + last.duration * (k + 1) for k in range(padding)]
    return FrameChunk(images, np.array([frame.time for frame in batch] + later, np.float64))
