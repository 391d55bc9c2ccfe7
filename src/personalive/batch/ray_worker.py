"""A worker on a Ray cluster: an actor that lives as long as the batch, with one pipeline loaded.

Ray turns this plain class into an actor, so importing it does not need Ray.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from queue import Empty, SimpleQueue

from personalive.batch.job_list import BatchJob
from personalive.batch.job_runner import open_runner
from personalive.batch.worker import JobProgress, JobResult, open_worker_context
from personalive.errors import ClusterError

MAX_ASSIGNED_JOBS = 2
"""The most jobs that a worker has at a time: one that animates, one that is opened or completed meanwhile."""
MAX_CONCURRENT_CALLS = MAX_ASSIGNED_JOBS + 1
"""Calls that an actor must answer at the same time: its jobs, and their progress."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """The identity of a worker."""

    name: str
    """Host and process id, for people."""
    node: str
    """Ray's id of the node."""
    version: str
    """The version of personalive on that machine."""


class RayWorker:
    """Runs jobs on a separate thread, one animating at a time; calls of `run_job` wait for their job's result."""

    def __init__(self, cache_bytes: int) -> None:
        self._stack = ExitStack()
        self._context = self._stack.enter_context(open_worker_context(cache_bytes, lambda standing: None))
        self._job_queue = _JobQueue()
        self._thread = threading.Thread(target=self._run, name="personalive-worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._job_queue.closed:
            try:
                with open_runner(self._context, self._job_queue) as runner:
                    while runner.run_next():
                        pass
            except BaseException as error:  # otherwise it would be lost, and the calls would wait forever
                self._context.pipeline_failed = True
                self._context.reset_pipeline()
                self._job_queue.fail(error)

    def info(self) -> WorkerInfo:
        """Return the worker's identity."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return WorkerInfo(f"{socket.gethostname()}/{os.getpid()}", node, version("personalive"))

    def progress(self) -> list[JobProgress]:
        """Return the progress of its jobs that have begun to animate."""
        return self._job_queue.progress()

    def run_job(self, task: BatchJob, acknowledged_outputs: Sequence[str] = ()) -> JobResult:
        """Run a job and return its result.

        `acknowledged_outputs`: outputs of earlier jobs whose results the executor has received. Their checkpoints
        are removed.
        """
        # On this thread, since requests to a store take a while: no other job waits for it.
        self._context.remove_checkpoints(acknowledged_outputs)
        return self._job_queue.put(task).result()

    def close(self) -> None:
        """Release what the worker holds. It must have no job."""
        self._job_queue.close()
        self._thread.join()
        self._stack.close()


class _JobQueue:
    """The jobs of the calls in progress, for the thread that runs them."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[BatchJob, Future[JobResult]] | None] = SimpleQueue()
        self._results: dict[str, Future[JobResult]] = {}
        """Results of the jobs that were taken, by job name; so are the entries of progress."""
        self._progress: dict[str, JobProgress] = {}
        self.closed = False

    # For the threads of actor calls

    def put(self, task: BatchJob) -> Future[JobResult]:
        outcome = Future[JobResult]()
        self._waiting.put((task, outcome))
        return outcome

    def progress(self) -> list[JobProgress]:
        return list(self._progress.values())

    def close(self) -> None:
        self.closed = True
        self._waiting.put(None)

    # For the thread that runs the jobs

    def next_task(self, *, ahead: bool) -> BatchJob | None:
        try:
            taken = self._waiting.get(block=not ahead)
        except Empty:
            return None
        if taken is None:
            return None
        task, self._results[taken[0].name] = taken
        return task

    def may_run_in_background(self, task: BatchJob) -> bool:
        # Jobs with files in stores as well: a worker need not handle Ctrl-C, since it is killed.
        del task
        return True

    def on_progress(self, progress: JobProgress) -> None:
        self._progress[progress.name] = progress

    def on_result(self, task: BatchJob, result: JobResult) -> None:
        self._progress.pop(task.name, None)
        self._results.pop(task.name).set_result(result)

    def fail(self, error: BaseException) -> None:
        """Make the calls of all jobs that were taken raise an error that the jobs did not cause."""
        self._progress.clear()
        while self._results:
            _, outcome = self._results.popitem()
            outcome.set_exception(ClusterError(f"The worker broke down: {error!r}"))
