"""Driving frames through a session, so that output frame i shows driving frame i and there are as many."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from personalive.jobs.background_io import Reader
from personalive.media import Image, VideoFrame
from personalive.pipelines.base import AnimatedChunk, FrameChunk, FrameState, PipelineInfo, Session


@dataclass(frozen=True, slots=True, eq=False)
class Driven:
    """A driving frame and what came of it."""

    driving: Image
    animated: Image
    state: FrameState


@contextmanager
def prepared_ahead(
    session: Session[Any], frames: Iterable[VideoFrame], *, ahead: int
) -> Iterator[Iterable[VideoFrame]]:
    """Prepare `frames` for the session's steps, on a thread that begins now, at most `ahead` frames in advance."""
    if type(session).prepare is Session.prepare:
        yield frames
        return
    with Reader(_prepared(session, frames), ahead=ahead) as reader:
        reader.start()
        yield reader


def _prepared(session: Session[Any], frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    for frame in frames:
        session.prepare(frame.image, frame.time)
        yield frame


def drive(
    session: Session[Any],
    info: PipelineInfo,
    frames: Iterable[VideoFrame],
    calls: AbstractContextManager[object] | None = None,
) -> Iterator[Driven]:
    """Animate `frames`, all of one size and evenly spaced, and yield each with its result, in order."""
    return Drive(session, info, frames, calls).results()


class Drive:
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
        calls: AbstractContextManager[object] | None = None,
    ) -> None:
        """`calls` is entered for each step, and again for the next."""
        self._session = session
        self._calls = calls or nullcontext()
        self._info = info
        self._source = iter(frames)
        self._pairing = _Pairing()
        self.taken = 0
        """Driving frames that the session has had."""
        self.ended = False
        """Whether the last result was given."""

    @property
    def padding(self) -> int:
        """How many of the frames that wait for their result only fill up the last chunk."""
        return self._pairing.padding

    def go_on(self, done: int, waiting: list[VideoFrame], padding: int) -> None:
        """Be where another drive was: `done` results given, then `waiting` driving frames and `padding`."""
        self.taken = done + len(waiting)
        self._pairing.expect(waiting, padding)

    def results(self, at_least: int | None = None) -> Iterator[Driven]:
        """Yield the next results, of whole steps, until there are `at_least` so many; by default all."""
        given = 0
        while at_least is None or given < at_least:
            for driven in self._step():
                given += 1
                yield driven
            if self.ended:
                return

    def _step(self) -> Iterator[Driven]:
        frames = list(itertools.islice(self._source, self._info.chunk_frames))
        if frames:
            padding = self._info.chunk_frames - len(frames) if self._info.exact_chunks else 0
            self.taken += len(frames)
            self._pairing.expect(frames, padding)
            with self._calls:
                animated = self._session.step(_chunk(frames, padding))
            yield from self._pairing.match(animated)
            return
        with self._calls:
            rest = self._session.flush()
        if rest is not None:
            yield from self._pairing.match(rest)
        self._pairing.check_complete()
        self.ended = True


class _Pairing:
    """Matches results to the driving frames that wait for theirs; padding waits as None."""

    def __init__(self) -> None:
        self._waiting: deque[Image | None] = deque()

    @property
    def padding(self) -> int:
        return sum(driving is None for driving in self._waiting)

    def expect(self, batch: list[VideoFrame], padding: int) -> None:
        self._waiting.extend(frame.image for frame in batch)
        self._waiting.extend([None] * padding)

    def match(self, chunk: AnimatedChunk) -> Iterator[Driven]:
        for animated, state in zip(chunk.images, chunk.states, strict=True):
            if state is FrameState.TRANSITION:
                continue
            if not self._waiting:
                raise RuntimeError("the pipeline gave back more frames than went in")
            driving = self._waiting.popleft()
            if driving is not None:
                yield Driven(driving, animated, state)

    def check_complete(self) -> None:
        missing = sum(driving is not None for driving in self._waiting)
        if missing:
            raise RuntimeError(f"the pipeline kept {missing} frames to itself")


def _chunk(batch: list[VideoFrame], padding: int) -> FrameChunk:
    last = batch[-1]
    images = [frame.image for frame in batch] + [last.image] * padding
    later = [last.time + last.duration * (k + 1) for k in range(padding)]
    return FrameChunk(images, np.array([frame.time for frame in batch] + later, np.float64))
