"""A batch on Ray: actors that are hired, given work, listened to, and replaced when they die."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from personalive.batch.job_tracker import JobTracker
from personalive.batch.ray_client import connect
from personalive.batch.ray_worker import MAX_ASSIGNED_JOBS, MAX_CONCURRENT_CALLS, RayWorker, WorkerInfo
from personalive.batch.remote_workdir import remove_checkpoint
from personalive.batch.worker import JobProgress, JobResult, JobTask, ResultStatus
from personalive.errors import ClusterError, InputError, PersonaLiveError

_POLL_SECONDS = 0.2
_PROGRESS_INTERVAL_S = 0.5
_CLOSE_TIMEOUT_S = 10.0
_CAPACITY_INTERVAL_S = 5.0
_START_TIMEOUT_S = 60.0
"""A worker that has no machine after this time is not waited for any more when nobody else is fit."""
_MAX_FAILED_STARTS = 4
"""So many workers in a row that never come up mean that none will."""


@dataclass(frozen=True, slots=True)
class RayExecutorSettings:
    """How many workers there are to be, and what each takes of its machine."""

    address: str | None = None
    """Of a Ray cluster: "auto", HOST:PORT or ray://HOST:PORT. None starts one on this machine, for this batch."""
    workers: int | None = None
    """None for as many as the cluster has room for."""
    gpus: float | None = None
    """Per worker; several share one GPU where it is below 1. None for 1 where the cluster has GPUs, else 0."""
    cpus: float = 1.0
    """Per worker."""
    cache_bytes: int = 10_000_000_000

    @property
    def total_cpus(self) -> int:
        """What all workers take together, as far as their number is known."""
        return math.ceil((self.workers or 1) * self.cpus)

    def check(self) -> None:
        """Raise `InputError` for numbers that cannot be."""
        if self.workers is not None and self.workers < 1:
            raise InputError(f"There must be one worker at least, not {self.workers}.")
        if not (math.isfinite(self.cpus) and self.cpus > 0):
            raise InputError(f"A worker must have some of a CPU, not {self.cpus:g}.")
        if self.gpus is not None and not (0 <= self.gpus < 1 or (self.gpus < 100 and self.gpus.is_integer())):
            raise InputError(f"A worker has 0 to 1 of a GPU, or several whole ones, not {self.gpus:g}.")


def run_on_ray(
    tracker: JobTracker,
    settings: RayExecutorSettings,
    *,
    on_progress: Callable[[str], None],
    on_result: Callable[[JobTask, JobResult], None],
) -> None:
    """Do all that waits. `on_progress` is called often, with a stage for the whole or ""; `on_result` with each outcome.

    Raises `ClusterError` where no worker can be had. Whatever is raised, the workers are gone afterwards.
    """
    on_progress("connecting to Ray")
    with connect(settings.address, settings.total_cpus) as ray:
        crew = _RayExecutor(ray, tracker, settings, on_result)
        try:
            while not tracker.finished:
                on_progress(crew.poll())
                tracker.save()
            crew.close()
        finally:
            crew.kill()


class _WorkerHandle:
    """An actor as the crew knows it. Without a name until it has said hello."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.name = ""
        self.node = ""
        self.assigned = 0
        """Jobs it was given that have not ended."""
        self.unacknowledged_outputs: list[str] = []
        """The outputs of jobs it has done. It keeps their segments until it is told that this is known."""
        self.progress_requested_at = 0.0
        self.spawned_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class _PendingCall:
    """A call of a worker that has not been answered: what to do with the answer, and whether it is an outcome."""

    worker: _WorkerHandle
    on_reply: Callable[[Any], None]
    runs_job: bool = False


def may_prefetch_job(assigned: int, all_assigned: Sequence[int], waiting: int) -> bool:
    """Whether a worker that has `assigned` jobs should get another one beside them, of `waiting` ones.

    `all_assigned`: how many each worker has, those included that are yet to come up. Each of them that is not full
    could begin one soon: with fewer jobs than that, whoever is ready first should get the next.
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
        keep: Callable[[JobTask, JobResult], None],
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
                f"{settings.workers}: let several share a GPU (--gpus-per-worker 0.5), or ask for fewer."
            )

    # Hiring

    def _read_capacity(self) -> int:
        """How many workers the machines that are there have room for, by what they have in all."""
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

    # One round

    def poll(self) -> str:
        """Hand out work, wait a moment, take in what came. Returns a stage for the whole, or ""."""
        self._spawn()
        self._assign_jobs()
        for worker in self._workers:
            self._request_progress(worker)
        dead = [end for call in self._ready_calls() if (end := self._handle_reply(call)) is not None]
        # Not before all answers are taken in: some may be of jobs that a dead one has finished.
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
        """The calls that have an answer, after a moment at most."""
        if not self._pending:
            time.sleep(_POLL_SECONDS)
            return []
        self._ray.wait(list(self._pending), num_returns=1, timeout=_POLL_SECONDS)
        ready, _ = self._ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
        return list(ready)

    def _assign_jobs(self) -> None:
        """Give every worker that is there a job, and then, where enough wait, the next one to open meanwhile."""
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

    def _on_job_result(self, worker: _WorkerHandle, task: JobTask, outcome: JobResult) -> None:
        worker.assigned -= 1
        if outcome.status is ResultStatus.DONE:
            worker.unacknowledged_outputs.append(task.output)
        self._on_result(task, outcome)
        self._tracker.on_result(task.name, worker.node, outcome)

    def _handle_reply(self, ref: Any) -> tuple[_WorkerHandle, str] | None:
        """Take in the answer to a call. Returns the worker, and how it died, if this is all there is to learn."""
        call = self._pending.pop(ref)
        worker = call.worker
        if worker not in self._workers:  # buried already, by another call's failure
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

    # Endings

    def _remove(self, worker: _WorkerHandle, reason: str) -> None:
        if worker not in self._workers:  # another call has said it too
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
        """Let the workers clear up: nothing is to be done any more."""
        calls = [worker.actor.close.remote() for worker in self._workers if worker.name]
        if calls:
            self._ray.wait(calls, num_returns=len(calls), timeout=_CLOSE_TIMEOUT_S)

    def kill(self) -> None:
        """End all workers now, whatever they are at."""
        for worker in self._workers:
            self._kill_worker(worker)
        self._workers.clear()

    def _kill_worker(self, worker: _WorkerHandle) -> None:
        with suppress(Exception):  # it may be gone, or Ray itself
            self._ray.kill(worker.actor, no_restart=True)
        for output in worker.unacknowledged_outputs:
            with suppress(PersonaLiveError):
                remove_checkpoint(output)


def _summarize_ray_error(error: Exception) -> str:
    """What matters of Ray's long explanations: how they begin, or for what a worker raised, how they end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1] if "creation task" in lines[0] else lines[0]
