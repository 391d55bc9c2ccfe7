"""Driving frames through a session, so that output frame i shows driving frame i and there are as many."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from personalive.media import Image, VideoFrame
from personalive.pipelines.interface import AnimatedChunk, FrameChunk, FrameState, PipelineInfo, Session


@dataclass(frozen=True, slots=True, eq=False)
class Driven:
    """A driving frame and what came of it."""

    driving: Image
    animated: Image
    state: FrameState


def drive(session: Session[Any], info: PipelineInfo, frames: Iterable[VideoFrame]) -> Iterator[Driven]:
    """Animate `frames`, all of one size and evenly spaced, and yield each with its result, in order.

    A delay is waited for and flushed out, lead-in frames are dropped, and where chunks must be whole the last
    is filled up by repeating its last frame. Driving frames are held until their result is there: a chunk and
    the pipeline's delay of them.
    """
    pairing = _Pairing()
    source = iter(frames)
    while batch := list(itertools.islice(source, info.chunk_frames)):
        padding = info.chunk_frames - len(batch) if info.exact_chunks else 0
        pairing.expect(batch, padding)
        yield from pairing.match(session.step(_chunk(batch, padding)))
    rest = session.flush()
    if rest is not None:
        yield from pairing.match(rest)
    pairing.check_complete()


class _Pairing:
    """Matches results to the driving frames that wait for theirs; padding waits as None."""

    def __init__(self) -> None:
        self._waiting: deque[Image | None] = deque()

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
    images = np.stack([frame.image for frame in batch] + [last.image] * padding)
    later = [last.time + last.duration * (k + 1) for k in range(padding)]
    return FrameChunk(images, np.array([frame.time for frame in batch] + later, np.float64))
