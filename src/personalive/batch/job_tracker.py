"""Tracks the jobs of a batch: which are to be done, which worker has each, what the results are, in one process.

An executor (`local_executor.py`, `ray_executor.py`) takes tasks from the tracker and reports their results; the
tracker does not know how or where the work is done.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from personalive.batch import storage
from personalive.batch.job_list import BatchJob
from personalive.batch.manifest import JobRecord, JobState, Manifest
from personalive.batch.remote_workdir import count_finished_segments
from personalive.batch.scheduler import JobScheduler
from personalive.batch.worker import JobProgress, JobResult, ResultStatus

LOCAL_WORKER = "this process"
"""The worker's name where a batch runs in the tracker's own process."""

_STAT_THREADS = 16
"""Concurrent requests to stores about files: each takes some tens of milliseconds, most of it waiting."""
_LOCKED_RETRY_SECONDS = 2.0
_MAX_LOCKED_RETRIES = 60
_RATE_WINDOW_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is. `previously_done` of the `done` jobs were done by an earlier run."""

    stage: str
    total: int
    done: int
    failed: int
    previously_done: int
    running: int
    frames_per_second: float
    """Recent rate of all workers together."""


@dataclass(slots=True)
class _Attempt:
    """A job that a worker has."""

    job: BatchJob
    worker: str
    progress: JobProgress
    started_at: float = field(default_factory=time.monotonic)


class JobTracker:
    """The jobs of one batch and their records.

    A job that kills its worker, or ends in an error, `max_attempts` times without finishing another segment is set
    aside. `on_failure` is called with the name of every job that fails in this run, and the reason.
    """

    def __init__(
        self,
        jobs: Sequence[BatchJob],
        manifest: Manifest,
        *,
        max_attempts: int = 3,
        on_failure: Callable[[str, str], None] | None = None,
    ) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._manifest = manifest
        self._max_attempts = max_attempts
        self._on_failure = on_failure or (lambda name, reason: None)
        self._keys: dict[str, str] = {}
        self._attempts: dict[str, _Attempt] = {}
        """Keyed by the job's name."""
        self._locked_counts: Counter[str] = Counter()
        self._scheduler = JobScheduler(())
        self.previously_done = 0
        """How many jobs an earlier run had done."""
        self._frame_samples: deque[tuple[float, int]] = deque()
        self._counts: Counter[JobState] = Counter()

    # Beginning

    def load(self, *, overwrite: bool = False, retry_failed: bool = False) -> None:
        """Inspect inputs, outputs and manifest, and decide which jobs are to be done.

        Done jobs with unchanged inputs, options and output are skipped; so are failed ones, unless `retry_failed`
        is True. A file that this batch has not made is replaced only if `overwrite` is True.
        """
        jobs = list(self._jobs.values())
        stamps = _read_versions({place for job in jobs for place in (job.reference, job.driving, job.output)})
        waiting = []
        for job in jobs:
            key = _job_key(job, stamps)
            self._keys[job.name] = key
            entry = self._initial_record(
                job, key, stamps[job.output], overwrite=overwrite, retry=retry_failed
            )
            if entry.state is JobState.PENDING:
                waiting.append(job)
            if entry.state is JobState.FAILED and entry != self._manifest.get(job.name):
                self._on_failure(entry.name, entry.reason or "")
            self._manifest.set(entry)
            self._counts[entry.state] += 1
        self.previously_done = self._counts[JobState.DONE]
        self._scheduler = JobScheduler(waiting)
        self._manifest.save(now=True)

    def _initial_record(
        self, job: BatchJob, key: str, output: storage.FileVersion | None, *, overwrite: bool, retry: bool
    ) -> JobRecord:
        known = self._manifest.get(job.name)
        record = JobRecord(name=job.name, key=key)
        if known.attempts == 0 and output is not None and not overwrite:
            reason = f"{job.output} exists already: name another output, or allow overwriting (-y)."
            return record.model_copy(update={"state": JobState.FAILED, "reason": reason})
        if known.key != key or known.attempts == 0:
            # A record with attempts means that this batch made the output, and may replace it.
            return record.model_copy(update={"attempts": known.attempts})
        if known.state is JobState.DONE:
            same = output is not None and output.size == known.size
            return known if same else record.model_copy(update={"attempts": known.attempts})
        if known.state is JobState.FAILED:
            again = known.model_copy(update={"state": JobState.PENDING, "reason": None, "crashes": 0})
            return again if retry else known
        if known.state is JobState.RUNNING and known.worker == LOCAL_WORKER:
            known = _with_segments(known, count_finished_segments(job.output))
            return self._after_crash(known, "the process ended at it")
        return known.model_copy(update={"state": JobState.PENDING})

    # For executors

    @property
    def finished(self) -> bool:
        """Whether no job waits and none is running."""
        return not self._attempts and not len(self._scheduler)

    @property
    def waiting_count(self) -> int:
        """How many jobs wait for a worker."""
        return len(self._scheduler)

    def take(self, worker: str, node: str, *, ahead: bool = False) -> BatchJob | None:
        """Take the next job for a worker on a node; None where there is none for it now.

        With `ahead`, the job is begun beside the one that the worker has. A job that may kill its worker never runs
        beside another, so that it is clear which of them did.
        """
        if ahead and any(
            self._may_kill_worker(one.job) for one in self._attempts.values() if one.worker == worker
        ):
            return None
        job = self._scheduler.take(worker, node)
        if job is None:
            return None
        if ahead and self._may_kill_worker(job):
            self._scheduler.requeue(job)
            return None
        self._attempts[job.name] = _Attempt(job, worker, JobProgress(job.name, "beginning"))
        entry = self._manifest[job.name]
        self._update(
            entry.model_copy(
                update={"state": JobState.RUNNING, "attempts": entry.attempts + 1, "worker": worker}
            )
        )
        # A job in this process may kill the tracker too: the manifest must name the job before it begins.
        self._manifest.save(now=worker == LOCAL_WORKER)
        return job

    def _may_kill_worker(self, job: BatchJob) -> bool:
        """Return whether the job must not share a worker: it has crashed before, or its first crash is its last."""
        return self._max_attempts == 1 or self._manifest[job.name].crashes > 0

    def on_progress(self, worker: str, progress: JobProgress) -> None:
        """Record a worker's progress on a job."""
        attempt = self._attempts.get(progress.name)
        if attempt is None or attempt.worker != worker:
            return
        before, attempt.progress = attempt.progress, progress
        self._record_segments(progress.name, progress.segments)
        if before.stage == progress.stage == "animating" and progress.frames > before.frames:
            self._frame_samples.append((time.monotonic(), progress.frames - before.frames))

    def on_result(self, name: str, node: str, result: JobResult) -> None:
        """Record the result of a node's attempt at the job called `name`."""
        job = self._attempts.pop(name).job
        entry = self._manifest[job.name]
        reason = result.reason or ""
        match result.status:
            case ResultStatus.DONE:
                self._update(_completed_record(entry, result))
            case ResultStatus.INVALID_INPUT:
                self._fail(entry, reason)
            case ResultStatus.NODE_UNSUITABLE:
                self._scheduler.exclude_node(job, node, reason)
                self._requeue(entry, job)
            case ResultStatus.LOCKED:
                self._locked_counts[job.name] += 1
                if self._locked_counts[job.name] > _MAX_LOCKED_RETRIES:
                    self._fail(entry, reason)
                else:
                    self._requeue(entry, job, seconds=_LOCKED_RETRY_SECONDS)
            case ResultStatus.ERROR:
                self._record_segments(job.name, result.segments)
                self._on_crash(job, reason)

    def on_worker_lost(self, worker: str, reason: str) -> None:
        """Record that a worker died, and requeue or fail what it had not finished."""
        self._scheduler.remove_worker(worker)
        for attempt in [one for one in self._attempts.values() if one.worker == worker]:
            del self._attempts[attempt.job.name]
            # It may have finished more segments than its last progress said.
            self._record_segments(attempt.job.name, count_finished_segments(attempt.job.output))
            self._on_crash(attempt.job, f"the worker died at it: {reason}")

    def fail_unschedulable(self, nodes: Iterable[str]) -> None:
        """Fail the jobs that none of `nodes`, which must be all there are, can run."""
        for job, reason in self._scheduler.pop_unschedulable(set(nodes)):
            self._fail(self._manifest[job.name], reason)

    def release_running(self) -> None:
        """Requeue all running jobs when the workers were stopped. Their attempts do not count."""
        for attempt in self._attempts.values():
            entry = self._manifest[attempt.job.name]
            self._update(entry.model_copy(update={"state": JobState.PENDING}))
        self._attempts.clear()

    def save(self, *, now: bool = False) -> None:
        """Write the manifest if it has changed and was not written just before; `now` does not wait."""
        self._manifest.save(now=now)

    # Results

    @property
    def records(self) -> list[tuple[BatchJob, JobRecord]]:
        """Every job and its record, in the order of the table."""
        return [(job, self._manifest[name]) for name, job in self._jobs.items()]

    def progress(self, stage: str = "") -> BatchProgress:
        """Return the batch's progress; `stage` describes what the batch as a whole is doing, if anything."""
        return BatchProgress(
            stage=stage,
            total=len(self._jobs),
            done=self._counts[JobState.DONE],
            failed=self._counts[JobState.FAILED],
            previously_done=self.previously_done,
            running=len(self._attempts),
            frames_per_second=self._frames_per_second(),
        )

    def _frames_per_second(self) -> float:
        now = time.monotonic()
        while self._frame_samples and self._frame_samples[0][0] < now - _RATE_WINDOW_SECONDS:
            self._frame_samples.popleft()
        if len(self._frame_samples) < 2:
            return 0.0
        return sum(count for _, count in self._frame_samples) / max(now - self._frame_samples[0][0], 1e-3)

    # Changes of a record

    def _update(self, entry: JobRecord) -> None:
        before = self._manifest[entry.name].state
        self._counts[before] -= 1
        self._counts[entry.state] += 1
        self._manifest.set(entry)

    def _fail(self, entry: JobRecord, reason: str) -> None:
        self._update(entry.model_copy(update={"state": JobState.FAILED, "reason": reason}))
        self._on_failure(entry.name, reason)

    def _requeue(self, entry: JobRecord, job: BatchJob, seconds: float = 0.0) -> None:
        """Put the job back into the queue as if it had not been taken."""
        self._update(entry.model_copy(update={"state": JobState.PENDING, "attempts": entry.attempts - 1}))
        self._scheduler.requeue(job, seconds=seconds)

    def _record_segments(self, name: str, segments: int) -> None:
        entry = self._manifest[name]
        if (further := _with_segments(entry, segments)) is not entry:
            self._update(further)

    def _after_crash(self, entry: JobRecord, reason: str) -> JobRecord:
        """Return the record after an attempt without a result: to be tried again, or set aside."""
        crashes = entry.crashes + 1
        if crashes < self._max_attempts:
            return entry.model_copy(update={"state": JobState.PENDING, "crashes": crashes})
        reason = f"{reason} (set aside after {crashes} attempts)"
        return entry.model_copy(update={"state": JobState.FAILED, "crashes": crashes, "reason": reason})

    def _on_crash(self, job: BatchJob, reason: str) -> None:
        entry = self._after_crash(self._manifest[job.name], reason)
        if entry.state is JobState.FAILED:
            self._fail(entry, entry.reason or "")
        else:
            self._update(entry)
            self._scheduler.requeue(job)


def _with_segments(entry: JobRecord, segments: int) -> JobRecord:
    """Return the record with that number of segments, its crash count reset if there are more than before.

    Machines that are preempted now and then must not end a long job.
    """
    if segments <= entry.segments:
        return entry
    return entry.model_copy(update={"segments": segments, "crashes": 0})


def _completed_record(entry: JobRecord, outcome: JobResult) -> JobRecord:
    report = outcome.report
    assert report is not None
    return entry.model_copy(
        update={
            "state": JobState.DONE,
            "reason": None,
            "crashes": 0,
            "size": outcome.size,
            "segments": outcome.segments,
            "seconds": round(report.seconds, 3),
            "frames": report.frames,
            "fps": report.fps,
            "width": report.width,
            "height": report.height,
            "pipeline": report.pipeline,
            "pipeline_name": report.pipeline_name,
            "notes": report.warnings,
        }
    )


def _read_versions(places: Iterable[str]) -> dict[str, storage.FileVersion | None]:
    ordered = list(places)
    with ThreadPoolExecutor(_STAT_THREADS) as pool:
        return dict(zip(ordered, pool.map(storage.read_version, ordered), strict=True))


def _job_key(job: BatchJob, stamps: Mapping[str, storage.FileVersion | None]) -> str:
    parts = [job.description, str(stamps[job.reference]), str(stamps[job.driving])]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
