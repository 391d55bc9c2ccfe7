"""A benchmark of whole steps, as sessions run them: the shipped portrait and driving clip, with default parameters.

Frames are prepared (faces detected and cropped) on a thread ahead of the steps, as in a job. A step goes from
asking for the next prepared chunk to its frames in the host's memory. So where preparing is slower than the
networks, its time is measured. Decoding the clip is left out. Keyframes are forced as in `engine_benchmark.py`.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from importlib.resources import as_file, files
from typing import Any, Self

import numpy as np
import torch

from personalive.errors import InputError
from personalive.media import Image, open_driving, read_image
from personalive.pipelines.base import AnimatedChunk, FrameChunk, FrameState, Session
from personalive.pipelines.diffusion import snapshots
from personalive.pipelines.diffusion.parameters import PersonaLiveRunParameters
from personalive.pipelines.diffusion.pipeline import PersonaLivePipeline
from personalive.pipelines.diffusion.profiling.engine_benchmark import read_synchronized_clock
from personalive.pipelines.diffusion.profiling.stage_timer import time_stages
from personalive.pipelines.diffusion.profiling.step_times import StepTimes, summarise
from personalive.pipelines.diffusion.session import PersonaLiveSession
from personalive.pipelines.diffusion.warmup import with_keyframes

PREPARED_CHUNKS = 2
"""The number of chunks that are prepared in advance, as many as a job's reader may hold."""
_NO_KEYFRAMES = PersonaLiveRunParameters(keyframe_threshold=1e9)
"""A threshold at which there are no keyframes except those that are forced; all else is at its default."""
_MAX_CHUNKS_TO_FACE = 8
"""The number of chunks within which a face must be found."""


class LoopedClip:
    """Driving frames in memory, repeated forwards and backwards endlessly, in chunks of `chunk_frames`."""

    def __init__(self, images: Sequence[Image], fps: float, chunk_frames: int) -> None:
        self._cycle = [*images, *images[-2:0:-1]]
        self._fps, self._chunk_frames = fps, chunk_frames

    def iterate_chunks(self) -> Iterator[FrameChunk]:
        """Yield chunks endlessly, at `fps` frames per second."""
        frames = itertools.cycle(self._cycle)
        for begin in itertools.count(step=self._chunk_frames):
            images = list(itertools.islice(frames, self._chunk_frames))
            yield FrameChunk(images, (begin + np.arange(self._chunk_frames)) / self._fps)


def load_sample_clip(chunk_frames: int) -> LoopedClip:
    """Read the shipped driving clip."""
    with as_file(files("personalive") / "samples/driving.mp4") as path, open_driving(path) as source:
        return LoopedClip([frame.image for frame in source], source.info.fps, chunk_frames)


def load_sample_portrait() -> Image:
    """Read the shipped portrait."""
    with as_file(files("personalive") / "samples/portrait.jpg") as path:
        return read_image(path)


class ChunkPreparer:
    """A thread that prepares a session's next chunks in order; it ends with the `with` block."""

    def __init__(self, session: Session[Any], chunks: Iterator[FrameChunk]) -> None:
        self._session, self._chunks = session, chunks
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._pending: deque[Future[FrameChunk]] = deque()

    def next_chunk(self) -> FrameChunk:
        """Return the next chunk once it is prepared, and start to prepare another one."""
        while len(self._pending) <= PREPARED_CHUNKS:
            self._pending.append(self._pool.submit(self._prepare))
        return self._pending.popleft().result()

    def _prepare(self) -> FrameChunk:
        chunk = next(self._chunks)
        for image, at in zip(chunk.images, chunk.times, strict=True):
            self._session.prepare(image, float(at))
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown(cancel_futures=True)


class SessionBenchmark:
    """A benchmark that steps sessions of a loaded pipeline on a `clip`, by default the shipped one."""

    def __init__(self, pipeline: PersonaLivePipeline, clip: LoopedClip | None = None) -> None:
        self._pipeline = pipeline
        self._engine = pipeline.engine
        self._clip = clip or load_sample_clip(pipeline.info.chunk_frames)
        self.reference = pipeline.fuse(load_sample_portrait())
        self.state_counts: Counter[FrameState] = Counter()
        """The number of frames of measured steps by their state."""

    def measure(self, *, sessions: int, keyframes: int, steps: int, warmup: int) -> StepTimes:
        """Measure `steps` steps, after `warmup` steps that do not count; return their medians.

        Raises `InputError` where no face is found in the clip, as nothing would be animated.
        """
        totals: list[float] = []
        stages: list[dict[str, float]] = []
        with ExitStack() as stack:
            timed = stack.enter_context(time_stages(self._engine))
            opened = [stack.enter_context(self._open_session()) for _ in range(sessions)]
            readers = [
                stack.enter_context(ChunkPreparer(each, self._start_session(each, keyframes)))
                for each in opened
            ]
            timed.collect()
            for number in range(warmup + steps):
                begun = read_synchronized_clock(self._engine.components.device)
                results = self._pipeline.step_many(opened, [reader.next_chunk() for reader in readers])
                totals.append(1000 * (time.perf_counter() - begun))
                stages.append(timed.collect())
                if number >= warmup:
                    self._count_states(results)
        return summarise(self._engine, sessions, keyframes, totals[warmup:], stages[warmup:])

    def _open_session(self) -> PersonaLiveSession:
        return self._pipeline.open_session(self.reference, _NO_KEYFRAMES)

    def _start_session(self, session: PersonaLiveSession, keyframes: int) -> Iterator[FrameChunk]:
        """Step until the face is found, insert keyframes into the session, and return the chunks after that."""
        chunks = self._clip.iterate_chunks()
        for chunk in itertools.islice(chunks, _MAX_CHUNKS_TO_FACE):
            if session.step(chunk).states[0] is not FrameState.WAITING:
                self._insert_keyframes(session, keyframes)
                return chunks
        raise InputError("No face was found in the driving clip: there is nothing to measure.")

    def _insert_keyframes(self, session: PersonaLiveSession, keyframes: int) -> None:
        """Insert history keyframes into the session, all copies of the reference."""
        if keyframes == 0:
            return
        kept = snapshots.deserialize(session.snapshot(), self._engine.components, self.reference)
        state = with_keyframes(kept.state, self.reference, keyframes)
        expressions = torch.cat([state.window.expressions[:1]] * (1 + keyframes))
        state = replace(state, window=replace(state.window, expressions=expressions))
        session.restore(snapshots.serialize(replace(kept, state=state)))

    def _count_states(self, results: Sequence[AnimatedChunk]) -> None:
        self.state_counts.update(state for result in results for state in result.states)
