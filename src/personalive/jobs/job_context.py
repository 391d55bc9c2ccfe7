"""What the two ways of doing a job have in common: in one go, and in segments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

from personalive.jobs.layouts import Layout
from personalive.jobs.plan import Plan
from personalive.media import DrivingSource
from personalive.pipelines.base import FrameState, Pipeline, Reference, Session

WAITING_FRAMES = 4
"""How many finished frames may wait for the writer."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A plan, and everything opened that it needs."""

    plan: Plan
    source: DrivingSource
    pipeline: Pipeline[Any, Any]
    reference: Reference
    layout: Layout
    calls: Lock
    """Held during each call of the pipeline and its sessions: see `Shared.calls`."""

    @property
    def frames_ahead(self) -> int:
        """How many driving frames may wait for the session."""
        return max(WAITING_FRAMES, 2 * self.pipeline.info.chunk_frames)

    @contextmanager
    def open_session(self) -> Iterator[Session[Any]]:
        """A new session, as the job wants it, for the time of a block."""
        with self.calls:
            session = self.pipeline.open_session(self.reference, self.plan.run, seed=self.plan.job.seed)
        try:
            yield session
        finally:
            with self.calls:
                session.close()


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What came of it: output frames by state, `seconds` spent on them, and what was wrong on the way.

    `earlier` of the frames were made by an earlier run.
    """

    states: Counter[FrameState]
    seconds: float
    warnings: tuple[str, ...]
    earlier: int = 0
