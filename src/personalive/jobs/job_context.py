"""What the two ways to run a job share: in one go, and in segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

from personalive.jobs.layouts import Layout
from personalive.jobs.plan import AnimatePlan
from personalive.media import VideoReader
from personalive.pipelines.base import FrameState, Pipeline, Reference, Session

WRITER_QUEUE_FRAMES = 4
"""How many finished frames may wait for the writer."""


@dataclass(frozen=True, slots=True, eq=False)
class JobContext:
    """A plan, with everything that it needs opened."""

    plan: AnimatePlan
    source: VideoReader
    pipeline: Pipeline[Any, Any]
    reference: Reference
    layout: Layout
    call_lock: Lock
    """Held during each call of the pipeline and its sessions: see `PipelineCache.call_lock`."""

    @property
    def frames_ahead(self) -> int:
        """How many driving frames may wait for the session."""
        return max(WRITER_QUEUE_FRAMES, 2 * self.pipeline.info.chunk_frames)

    @contextmanager
    def open_session(self) -> Iterator[Session[Any]]:
        """Yield a new session with the job's parameters; close it after the block."""
        with self.call_lock:
            session = self.pipeline.open_session(
                self.reference, self.plan.run_parameters, seed=self.plan.job.seed
            )
        try:
            yield session
        finally:
            with self.call_lock:
                session.close()


@dataclass(frozen=True, slots=True, eq=False)
class RenderResult:
    """The result of a job: output frames by state, `seconds` spent on them, and warnings.

    `resumed_frames` of the frames were made by an earlier run.
    """

    states: Counter[FrameState]
    seconds: float
    warnings: tuple[str, ...]
    resumed_frames: int = 0
