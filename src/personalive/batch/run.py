"""Runs a batch from its jobs to its report: reads the manifest, runs the jobs, and records their results."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from personalive.batch import storage
from personalive.batch.job_list import BatchJob
from personalive.batch.job_tracker import BatchProgress, JobTracker
from personalive.batch.local_executor import run_locally
from personalive.batch.manifest import JobState, Manifest
from personalive.batch.ray_executor import RayExecutorSettings, run_on_ray
from personalive.batch.remote_workdir import remove_checkpoint
from personalive.batch.report import BatchTotals, save_thumbnail, write_report
from personalive.batch.worker import JobResult
from personalive.errors import InputError, OutputLockedError, PersonaLiveError
from personalive.locking import ProcessLock
from personalive.media.output import translate_write_errors

_LOCK = ".batch.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """Settings of a batch. `out` is the URI of the folder of its results, manifest and report."""

    out: str
    ray: RayExecutorSettings = field(default_factory=RayExecutorSettings)
    max_attempts: int = 3
    """A job that kills its worker this many times in a row, without another finished segment, is set aside."""
    retry_failed: bool = False
    overwrite: bool = False

    @property
    def uses_ray(self) -> bool:
        """Whether Ray is needed: for a cluster, or for more than one worker on this machine."""
        return self.ray.address is not None or (self.ray.workers or 1) > 1


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of a batch. `report` is the URI of the HTML page."""

    totals: BatchTotals
    report: str
    previously_done: int
    """How many jobs an earlier run had done."""


def run_batch(
    jobs: Sequence[BatchJob],
    settings: BatchSettings,
    *,
    on_progress: Callable[[BatchProgress], None] | None = None,
    on_failure: Callable[[str, str], None] | None = None,
) -> BatchResult:
    """Run the jobs and write a report. `on_progress` is called often, `on_failure` with each failed job and why.

    A job that fails raises no exception. Ctrl-C stops the workers. After it, or anything else that ends this
    process, the same call resumes the batch.

    Raises `InputError` for invalid settings, `OutputLockedError` where another batch uses that folder,
    `ClusterError` where no worker can be started, `MediaError` or `RemoteStorageError` where nothing can be
    written.
    """
    settings.ray.check()
    if settings.max_attempts < 1:
        raise InputError(f"A job must have at least one attempt, not {settings.max_attempts}.")
    say = on_progress or (lambda course: None)
    begun = time.monotonic()
    storage.make_folder(settings.out)
    with _lock_output_folder(settings.out):
        batch = JobTracker(
            jobs, Manifest.read(settings.out), max_attempts=settings.max_attempts, on_failure=on_failure
        )
        say(batch.progress("checking the files"))
        batch.load(overwrite=settings.overwrite, retry_failed=settings.retry_failed)
        try:
            _execute(batch, settings, lambda stage: say(batch.progress(stage)))
        finally:
            batch.release_running()
            batch.save(now=True)
        say(batch.progress("writing the report"))
        _remove_orphaned_checkpoints(batch)
        page = write_report(settings.out, batch.records, time.monotonic() - begun)
        return BatchResult(BatchTotals.from_rows(batch.records), page, batch.previously_done)


def _execute(batch: JobTracker, settings: BatchSettings, tell: Callable[[str], None]) -> None:
    def keep(task: BatchJob, outcome: JobResult) -> None:
        if outcome.thumbnail is not None:
            with contextlib.suppress(PersonaLiveError):  # the report can do without it
                save_thumbnail(settings.out, task.name, outcome.thumbnail)

    if batch.finished:
        return
    if settings.uses_ray:
        run_on_ray(batch, settings.ray, on_progress=tell, on_result=keep)
    else:
        run_locally(batch, cache_bytes=settings.ray.cache_bytes, on_progress=tell, on_result=keep)


def _remove_orphaned_checkpoints(batch: JobTracker) -> None:
    """Remove the segments of finished jobs whose workers died before they could.

    A worker keeps the segments of its last job until it begins another. Checking is cheap on a disk, but takes a
    request for each job in a store, where it is done only after a worker was lost.
    """
    lost = any(entry.attempts > 1 for _, entry in batch.records)
    for job, entry in batch.records:
        if entry.state is JobState.DONE and (lost or not storage.is_remote(job.output)):
            with contextlib.suppress(PersonaLiveError):
                remove_checkpoint(job.output)


@contextmanager
def _lock_output_folder(out: str) -> Iterator[None]:
    """Lock an output folder on this machine against other batches during a block; stores have no locks."""
    if storage.is_remote(out):
        yield
        return
    lock = ProcessLock(Path(out) / _LOCK)
    with translate_write_errors(Path(out)):
        taken = lock.acquire()
    if not taken:
        raise OutputLockedError(f"Another batch is running in {out}: wait for it to end.")
    try:
        yield
    finally:
        lock.release()
