"""What the two ways of doing a job have in common: in one go, and in segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

from personalive.jobs.layouts import Layout
from personalive.jobs.plan import AnimatePlan
from personalive.media import DrivingSource
from personalive.pipelines.base import FrameState, Pipeline, Reference, Session

WRITER_QUEUE_FRAMES = 4
"""How many finished frames may wait for the writer."""


@dataclass(frozen=True, slots=True, eq=False)
class JobContext:
    """A plan, and everything opened that it needs."""

    plan: AnimatePlan
    source: DrivingSource
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
        """A new session, as the job wants it, for the time of a block."""
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
    """What came of it: output frames by state, `seconds` spent on them, and what was wrong on the way.

    `resumed_frames` of the frames were made by an earlier run.
    """

    states: Counter[FrameState]
    seconds: float
    warnings: tuple[str, ...]
    resumed_frames: int = 0
