"""Runs a batch on Ray: spawns actors, assigns jobs to them, polls them, and replaces those that die."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from personalive.batch.job_list import BatchJob
from personalive.batch.job_tracker import JobTracker
from personalive.batch.ray_client import connect
from personalive.batch.ray_worker import MAX_ASSIGNED_JOBS, MAX_CONCURRENT_CALLS, RayWorker, WorkerInfo
from personalive.batch.remote_workdir import remove_checkpoint
from personalive.batch.worker import JobProgress, JobResult, ResultStatus
from personalive.errors import ClusterError, InputError, PersonaLiveError

_POLL_SECONDS = 0.2
_PROGRESS_INTERVAL_S = 0.5
_CLOSE_TIMEOUT_S = 10.0
_CAPACITY_INTERVAL_S = 5.0
_START_TIMEOUT_S = 60.0
"""How long to wait for a worker to get a machine when no other worker can run the jobs that wait."""
_MAX_FAILED_STARTS = 4
"""The batch fails after this many workers in a row that never start."""


@dataclass(frozen=True, slots=True)
class RayExecutorSettings:
    """The number of workers, and the resources of each."""

    address: str | None = None
    """A Ray cluster's address: "auto", HOST:PORT or ray://HOST:PORT. None starts one here for this batch."""
    workers: int | None = None
    """None: as many as the cluster has room for."""
    gpus: float | None = None
    """Per worker; below 1, several share one GPU. None: 1 where the cluster has GPUs, else 0."""
    cpus: float = 1.0
    """Per worker."""
    cache_bytes: int = 10_000_000_000

    @property
    def total_cpus(self) -> int:
        """The CPUs of all workers together; one worker's where their number is not known."""
        return math.ceil((self.workers or 1) * self.cpus)

    def check(self) -> None:
        """Raise `InputError` for numbers out of range."""
        if self.workers is not None and self.workers < 1:
            raise InputError(f"There must be at least one worker, not {self.workers}.")
        if not (math.isfinite(self.cpus) and self.cpus > 0):
            raise InputError(f"A worker needs more than 0 CPUs, not {self.cpus:g}.")
        if self.gpus is not None and not (0 <= self.gpus < 1 or (self.gpus < 100 and self.gpus.is_integer())):
            raise InputError(f"A worker takes 0 to 1 GPU, or a whole number of GPUs, not {self.gpus:g}.")


def run_on_ray(
    tracker: JobTracker,
    settings: RayExecutorSettings,
    *,
    on_progress: Callable[[str], None],
    on_result: Callable[[BatchJob, JobResult], None],
) -> None:
    """Run all waiting jobs. `on_progress` is called often with the batch's stage or "", `on_result` per job.

    Raises `ClusterError` where no worker can be started. The workers are gone afterwards, after an exception too.
    """
    on_progress("connecting to Ray")
    with connect(settings.address, settings.total_cpus) as ray:
        executor = _RayExecutor(ray, tracker, settings, on_result)
        try:
            while not tracker.finished:
                on_progress(executor.poll())
                tracker.save()
            executor.close()
        finally:
            executor.kill()


class _WorkerHandle:
    """An actor as the executor knows it. It has no name until its `WorkerInfo` has arrived."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.name = ""
        self.node = ""
        self.assigned = 0
        """How many jobs it was given that have not ended."""
        self.unacknowledged_outputs: list[str] = []
        """Outputs of its finished jobs. It keeps their segments until the executor acknowledges them."""
        self.progress_requested_at = 0.0
        self.spawned_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class _PendingCall:
    """A call of a worker without a reply so far: what to do with the reply, and whether it is a job's result."""

    worker: _WorkerHandle
    on_reply: Callable[[Any], None]
    runs_job: bool = False


def may_prefetch_job(assigned: int, all_assigned: Sequence[int], waiting: int) -> bool:
    """Return whether a worker that has `assigned` jobs should get another of the `waiting` ones beside them.

    `all_assigned`: how many jobs each worker has, including workers that are still starting. Each of them that is
    not full could begin a job soon: where fewer jobs wait than that, the first worker that is ready should get the
    next.
    """
    return 0 < assigned < MAX_ASSIGNED_JOBS and waiting >= sum(
        count < MAX_ASSIGNED_JOBS for count in all_assigned
    )


class _RayExecutor:
    def __init__(
        self,
        ray: Any,
        batch: JobTracker,
        settings: RayExecutorSettings,
        keep: Callable[[BatchJob, JobResult], None],
    ) -> None:
        self._ray = ray
        self._tracker = batch
        self._on_result = keep
        gpus = settings.gpus
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0
        self._worker_resources = {"CPU": settings.cpus, "GPU": gpus}
        self._max_workers = settings.workers
        self._actor_class = ray.remote(
            num_cpus=settings.cpus,
            num_gpus=gpus,
            max_restarts=0,
            max_concurrency=MAX_CONCURRENT_CALLS,
        )(RayWorker)
        self._cache_bytes = settings.cache_bytes
        self._workers: list[_WorkerHandle] = []
        self._pending: dict[Any, _PendingCall] = {}
        self._failed_starts = 0
        self._capacity_read_at, self._capacity = 0.0, self._read_capacity()
        if settings.address is None and self._capacity < (settings.workers or 1):
            raise ClusterError(
                f"This machine has room for {self._capacity} workers, each with {self._describe_resources()}, not "
                f"{settings.workers}: let several share a GPU (--gpus-per-worker 0.5), or use fewer."
            )

    # Spawning

    def _read_capacity(self) -> int:
        """Return how many workers the cluster's machines have room for, by their total resources."""
        room = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                fits = [
                    int(has.get(name, 0) / need + 1e-9)
                    for name, need in self._worker_resources.items()
                    if need
                ]
                room += min(fits)
        return room

    def _describe_resources(self) -> str:
        cpus, gpus = self._worker_resources["CPU"], self._worker_resources["GPU"]
        return f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")

    def _spawn(self) -> None:
        if time.monotonic() > self._capacity_read_at + _CAPACITY_INTERVAL_S:  # machines come and go
            self._capacity_read_at, self._capacity = time.monotonic(), self._read_capacity()
        wanted = self._max_workers or max(self._capacity, 1)
        idle = sum(not worker.assigned for worker in self._workers)
        missing = min(wanted - len(self._workers), self._tracker.waiting_count - idle)
        for _ in range(missing):
            worker = _WorkerHandle(self._actor_class.remote(self._cache_bytes))
            self._workers.append(worker)
            self._pending[worker.actor.info.remote()] = _PendingCall(
                worker, partial(self._on_worker_ready, worker)
            )

    def _on_worker_ready(self, worker: _WorkerHandle, hello: WorkerInfo) -> None:
        from importlib.metadata import version

        if hello.version != version("personalive"):
            raise ClusterError(
                f"{hello.name} has personalive {hello.version}, this machine {version('personalive')}: "
                "install the same version on every machine."
            )
        self._failed_starts = 0
        worker.name, worker.node = hello.name, hello.node

    # Polling

    def poll(self) -> str:
        """Assign jobs, wait a moment, and handle replies. Return the batch's stage, or ""."""
        self._spawn()
        self._assign_jobs()
        for worker in self._workers:
            self._request_progress(worker)
        dead = [end for call in self._ready_calls() if (end := self._handle_reply(call)) is not None]
        # Only after all replies are handled: a dead worker's may include results of jobs that it finished.
        for worker, reason in dead:
            self._remove(worker, reason)
        nodes = {worker.node for worker in self._workers if worker.name}
        late = time.monotonic() - _START_TIMEOUT_S
        if all(worker.name or worker.spawned_at < late for worker in self._workers):
            self._tracker.fail_unschedulable(nodes)
        if not nodes and self._workers:
            return f"waiting for workers, each with {self._describe_resources()}"
        return ""

    def _ready_calls(self) -> list[Any]:
        """Return the calls that have a reply, after a short wait."""
        if not self._pending:
            time.sleep(_POLL_SECONDS)
            return []
        self._ray.wait(list(self._pending), num_returns=1, timeout=_POLL_SECONDS)
        ready, _ = self._ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        return list(ready)

    def _assign_jobs(self) -> None:
        """Give every ready worker a job, and then, where enough jobs wait, a second one to open meanwhile."""
        there = [worker for worker in self._workers if worker.name]
        for worker in there:
            if not worker.assigned and self._tracker.waiting_count:
                self._assign(worker)
        for worker in there:
            every = [one.assigned for one in self._workers]
            if may_prefetch_job(worker.assigned, every, self._tracker.waiting_count):
                self._assign(worker, ahead=True)

    def _assign(self, worker: _WorkerHandle, *, ahead: bool = False) -> None:
        task = self._tracker.take(worker.name, worker.node, ahead=ahead)
        if task is not None:
            known, worker.unacknowledged_outputs = worker.unacknowledged_outputs, []
            worker.assigned += 1
            then = partial(self._on_job_result, worker, task)
            self._pending[worker.actor.run_job.remote(task, known)] = _PendingCall(
                worker, then, runs_job=True
            )

    def _request_progress(self, worker: _WorkerHandle) -> None:
        if not worker.assigned or time.monotonic() < worker.progress_requested_at + _PROGRESS_INTERVAL_S:
            return
        worker.progress_requested_at = math.inf
        self._pending[worker.actor.progress.remote()] = _PendingCall(
            worker, partial(self._on_progress, worker)
        )

    def _on_progress(self, worker: _WorkerHandle, standings: list[JobProgress]) -> None:
        worker.progress_requested_at = time.monotonic()
        for standing in standings:
            self._tracker.on_progress(worker.name, standing)

    def _on_job_result(self, worker: _WorkerHandle, task: BatchJob, outcome: JobResult) -> None:
        worker.assigned -= 1
        if outcome.status is ResultStatus.DONE:
            worker.unacknowledged_outputs.append(task.output)
        self._on_result(task, outcome)
        self._tracker.on_result(task.name, worker.node, outcome)

    def _handle_reply(self, ref: Any) -> tuple[_WorkerHandle, str] | None:
        """Handle the reply to a call. Return the worker and the reason if the call failed with the worker."""
        call = self._pending.pop(ref)
        worker = call.worker
        if worker not in self._workers:  # removed already, after another call failed
            return None
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(ref)
        except errors.RayTaskError as error:
            if not worker.name:
                return worker, str(error.cause or error)
            if call.runs_job:
                call.on_reply(JobResult(ResultStatus.ERROR, str(error.cause or error)))
            return None
        except errors.RayError as error:
            return worker, _summarize_ray_error(error)
        call.on_reply(answer)
        return None

    # Shutting down

    def _remove(self, worker: _WorkerHandle, reason: str) -> None:
        if worker not in self._workers:  # another call has reported it too
            return
        self._workers.remove(worker)
        self._kill_worker(worker)
        if worker.name:
            self._tracker.on_worker_lost(worker.name, reason)
            return
        self._failed_starts += 1
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise ClusterError(f"Workers do not start on the cluster: {reason}")

    def close(self) -> None:
        """Let the workers clean up: no more jobs follow."""
        calls = [worker.actor.close.remote() for worker in self._workers if worker.name]
        if calls:
            self._ray.wait(calls, num_returns=len(calls), timeout=_CLOSE_TIMEOUT_S)

    def kill(self) -> None:
        """Kill all workers now, with unfinished jobs too."""
        for worker in self._workers:
            self._kill_worker(worker)
        self._workers.clear()

    def _kill_worker(self, worker: _WorkerHandle) -> None:
        with suppress(Exception):  # the worker may be gone, or Ray itself
            self._ray.kill(worker.actor, no_restart=True)
        for output in worker.unacknowledged_outputs:
            with suppress(PersonaLiveError):
                remove_checkpoint(output)


def _summarize_ray_error(error: Exception) -> str:
    """Return the first line of Ray's long message, or the last for an exception raised in a worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1] if "creation task" in lines[0] else lines[0]
