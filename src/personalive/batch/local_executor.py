"""A batch in this process: no Ray, and nothing to set up. The jobs animate on the main thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from personalive.batch import storage
from personalive.batch.job_list import BatchJob
from personalive.batch.job_runner import open_runner
from personalive.batch.job_tracker import LOCAL_WORKER, JobTracker
from personalive.batch.worker import JobProgress, JobResult, WorkerContext, open_worker_context

_RETRY_SECONDS = 0.2

ResultCallback = Callable[[BatchJob, JobResult], None]
"""Called with each job and its result."""


def run_locally(
    tracker: JobTracker, *, cache_bytes: int, on_progress: Callable[[str], None], on_result: ResultCallback
) -> None:
    """Run all waiting jobs. `on_progress` is called often with the batch's stage or "", `on_result` per job."""
    with (
        open_worker_context(cache_bytes, lambda standing: None) as context,
        open_runner(context, _LocalJobSource(tracker, context, on_progress, on_result)) as runner,
    ):
        while not tracker.finished:
            if runner.run_next():
                on_progress("")
                continue
            tracker.fail_unschedulable([LOCAL_WORKER])
            if not tracker.finished:
                on_progress("waiting for another run")
                time.sleep(_RETRY_SECONDS)


class _LocalJobSource:
    """Takes the jobs of a batch from the tracker for this process, and records their results."""

    def __init__(
        self, batch: JobTracker, context: WorkerContext, tell: Callable[[str], None], keep: ResultCallback
    ) -> None:
        self._tracker = batch
        self._context = context
        self._notify = tell
        self._store_result = keep

    def next_task(self, *, ahead: bool) -> BatchJob | None:
        return self._tracker.take(LOCAL_WORKER, LOCAL_WORKER, ahead=ahead)

    def may_run_in_background(self, task: BatchJob) -> bool:
        # A request to a store may never return, and only the main thread receives Ctrl-C.
        return not any(map(storage.is_remote, (task.reference, task.driving, task.output)))

    def on_progress(self, progress: JobProgress) -> None:
        self._tracker.on_progress(LOCAL_WORKER, progress)
        self._tracker.save()
        self._notify("")

    def on_result(self, task: BatchJob, result: JobResult) -> None:
        self._store_result(task, result)
        self._tracker.on_result(task.name, LOCAL_WORKER, result)
        self._tracker.fail_unschedulable([LOCAL_WORKER])
        self._tracker.save(now=True)
        self._context.remove_checkpoints()
