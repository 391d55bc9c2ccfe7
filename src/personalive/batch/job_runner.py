"""Runs a worker's jobs: they take turns on the pipeline, and work that does not need it is done meanwhile.

All jobs animate on one thread, one after the other. While one does, the next is opened and the one before it
completed, each on another thread, so that the pipeline does not wait for files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from personalive.batch.job_list import BatchJob
from personalive.batch.worker import JobProgress, JobResult, WorkerContext
from personalive.jobs.background_io import BackgroundCall
from personalive.jobs.phases import Phase

_PREFETCH_INTERVAL_S = 0.1
"""Minimum time between two requests for the next job while one animates: frames can be much faster."""


class JobSource(Protocol):
    """Where the jobs come from. All methods are called on the thread on which the jobs animate."""

    def next_task(self, *, ahead: bool) -> BatchJob | None:
        """Return the next job or None. With `ahead`, it is opened while another animates: do not wait for one."""

    def may_run_in_background(self, task: BatchJob) -> bool:
        """Return whether the job may be opened and completed on another thread."""

    def on_progress(self, progress: JobProgress) -> None:
        """Take the progress of the job that animates."""

    def on_result(self, task: BatchJob, result: JobResult) -> None:
        """Take the result of a job."""


class _JobCancelled(BaseException):
    """Ends a job on another thread when all jobs are cancelled."""


class _Attempt:
    """A job between its phases. `next_phase` comes next; `result` is set when the job has ended."""

    def __init__(self, context: WorkerContext, task: BatchJob) -> None:
        self.task = task
        self.next_phase: Phase | None = None
        self.result: JobResult | None = None
        self.background_call: BackgroundCall[None] | None = None
        """The call on another thread that runs the current phase."""
        self._phases = context.run_in_phases(task)

    def advance(self) -> None:
        """Run one phase."""
        try:
            self.next_phase = next(self._phases)
        except StopIteration as end:
            self.result = end.value

    def advance_in_background(self) -> None:
        """Run one phase on another thread."""
        self.background_call = BackgroundCall(self.advance)
        self.background_call.start()

    def wait(self) -> None:
        """Wait for the other thread."""
        if self.background_call is not None:
            self.background_call.result()
            self.background_call = None

    def close(self) -> None:
        """Cancel the job; it leaves behind what an interrupted run leaves."""
        if self.background_call is not None:
            self.background_call.wait()
        self._phases.close()


class JobRunner:
    """Runs up to three jobs at once: one is being opened, one animates, one is being completed.

    Call its methods only on the thread that made it.
    """

    def __init__(self, context: WorkerContext, jobs: JobSource) -> None:
        self._context = context
        self._source = jobs
        self._prepared: _Attempt | None = None
        self._running: _Attempt | None = None
        self._finishing: _Attempt | None = None
        self._is_animating = self._stopped = False
        self._prefetched_at = 0.0
        self._thread = threading.current_thread()
        context.on_progress = self._on_progress

    def _on_progress(self, standing: JobProgress) -> None:
        if threading.current_thread() is not self._thread:
            # The result says all that matters about these phases.
            if self._stopped:
                raise _JobCancelled
            return
        if (
            self._finishing is not None
            and self._finishing.background_call is not None
            and self._finishing.background_call.done
        ):
            self._await_finishing()
        if (
            self._is_animating
            and self._prepared is None
            and time.monotonic() > self._prefetched_at + _PREFETCH_INTERVAL_S
        ):
            self._prepare_next()
        self._source.on_progress(standing)

    def run_next(self) -> bool:
        """Animate the next job. Return False where there is none."""
        attempt = self._running = self._next_attempt()
        if attempt is None:
            return False
        attempt.wait()
        while attempt.result is None and attempt.next_phase is not Phase.ANIMATING:
            if attempt.next_phase is Phase.LOADING:
                self._await_finishing()
            attempt.advance()
        if attempt.result is None:
            self._animate(attempt)
        self._await_finishing()
        self._finishing, self._running = attempt, None
        if attempt.result is None and self._source.may_run_in_background(attempt.task):
            attempt.advance_in_background()
        else:
            self._await_finishing()
        if self._context.pipeline_failed:
            self._reload_pipeline()
        return True

    def _animate(self, attempt: _Attempt) -> None:
        self._prepare_next()
        self._is_animating = True
        while attempt.result is None and attempt.next_phase is not Phase.FINISHING:
            attempt.advance()
        self._is_animating = False

    def _next_attempt(self) -> _Attempt | None:
        opened, self._prepared = self._prepared, None
        if opened is not None:
            return opened
        self._await_finishing()
        task = self._source.next_task(ahead=False)
        return None if task is None else _Attempt(self._context, task)

    def _prepare_next(self) -> None:
        self._prefetched_at = time.monotonic()
        task = self._source.next_task(ahead=True)
        if task is None:
            return
        self._prepared = _Attempt(self._context, task)
        if self._source.may_run_in_background(task):
            self._prepared.advance_in_background()

    def _await_finishing(self) -> None:
        """Wait for the job that is being completed, and report its result."""
        attempt = self._finishing
        if attempt is None:
            return
        attempt.wait()
        while attempt.result is None:
            attempt.advance()
        self._finishing = None
        self._source.on_result(attempt.task, attempt.result)

    def _reload_pipeline(self) -> None:
        """Replace the pipeline; a job that has a session of the old one is opened again."""
        self._await_finishing()
        opened = self._prepared
        if opened is not None:
            opened.wait()
            if opened.result is None:
                opened.close()
                self._prepared = _Attempt(self._context, opened.task)
        self._context.reset_pipeline()

    def cancel_all(self) -> None:
        """Cancel all jobs that are not done."""
        self._stopped = True
        for attempt in (self._running, self._prepared, self._finishing):
            if attempt is not None:
                attempt.close()
        completed, self._finishing = self._finishing, None
        if completed is not None and completed.result is not None:
            self._source.on_result(completed.task, completed.result)


@contextmanager
def open_runner(context: WorkerContext, source: JobSource) -> Iterator[JobRunner]:
    """Yield a runner; when the block is left, by an exception too, none of its threads is still running."""
    runner = JobRunner(context, source)
    try:
        yield runner
    finally:
        runner.cancel_all()
