"""A worker on a Ray cluster: an actor that lives as long as the batch, with one pipeline loaded.

Ray makes an actor of this class; here it is plain, so that whoever imports it needs no Ray.
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

from personalive.batch.job_runner import open_runner
from personalive.batch.worker import JobProgress, JobResult, JobTask, open_worker_context
from personalive.errors import ClusterError

MAX_ASSIGNED_JOBS = 2
"""So many jobs at most a worker is given at a time: one to animate, one that is opened or completed meanwhile."""
MAX_CONCURRENT_CALLS = MAX_ASSIGNED_JOBS + 1
"""Calls that it must be able to answer at the same time: the jobs, and how far they are."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Who a worker is."""

    name: str
    """Host and process, for people."""
    node: str
    """Ray's id of the machine."""
    version: str
    """Of personalive there."""


class RayWorker:
    """Does jobs on a thread of its own, one animating at a time; calls of `run_job` wait for what comes of theirs."""

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
            except BaseException as error:  # nobody else would hear of it, and the calls would wait for ever
                self._context.pipeline_failed = True
                self._context.reset_pipeline()
                self._job_queue.fail(error)

    def info(self) -> WorkerInfo:
        """Who it is."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return WorkerInfo(f"{socket.gethostname()}/{os.getpid()}", node, version("personalive"))

    def progress(self) -> list[JobProgress]:
        """How far it is with the jobs that it has in hand and has begun to animate."""
        return self._job_queue.progress()

    def run_job(self, task: JobTask, acknowledged_outputs: Sequence[str] = ()) -> JobResult:
        """Do a job and say what came of it.

        `acknowledged_outputs`: outputs of earlier jobs that whoever hands out the work knows to be done. What is kept of the
        work on these is removed.
        """
        # First, and on this thread: in a store it takes a while, and nothing waits for it.
        self._context.remove_checkpoints(acknowledged_outputs)
        return self._job_queue.put(task).result()

    def close(self) -> None:
        """Give back what it holds. No job may be in hand."""
        self._job_queue.close()
        self._thread.join()
        self._stack.close()


class _JobQueue:
    """The jobs that were asked for, as the thread takes them that does them."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[tuple[JobTask, Future[JobResult]] | None] = SimpleQueue()
        self._results: dict[str, Future[JobResult]] = {}
        """Of the jobs that were taken, by name, as are the standings."""
        self._progress: dict[str, JobProgress] = {}
        self.closed = False

    # For the threads of calls

    def put(self, task: JobTask) -> Future[JobResult]:
        outcome = Future[JobResult]()
        self._waiting.put((task, outcome))
        return outcome

    def progress(self) -> list[JobProgress]:
        return list(self._progress.values())

    def close(self) -> None:
        self.closed = True
        self._waiting.put(None)

    # For the thread that does the jobs

    def next_task(self, *, ahead: bool) -> JobTask | None:
        try:
            taken = self._waiting.get(block=not ahead)
        except Empty:
            return None
        if taken is None:
            return None
        task, self._results[taken[0].name] = taken
        return task

    def may_run_in_background(self, task: JobTask) -> bool:
        # Files in stores as well: a worker need not hear Ctrl-C, it is killed.
        del task
        return True

    def on_progress(self, progress: JobProgress) -> None:
        self._progress[progress.name] = progress

    def on_result(self, task: JobTask, result: JobResult) -> None:
        self._progress.pop(task.name, None)
        self._results.pop(task.name).set_result(result)

    def fail(self, error: BaseException) -> None:
        """Let the calls for all jobs that were taken end in an error that is none of theirs."""
        self._progress.clear()
        while self._results:
            _, outcome = self._results.popitem()
            outcome.set_exception(ClusterError(f"The worker broke down: {error!r}"))
