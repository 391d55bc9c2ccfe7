"""A batch from the jobs to the report: the manifest read, the work handed out, whatever happens written down."""

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
from personalive.batch.worker import JobResult, JobTask
from personalive.errors import InputError, OutputLockedError, PersonaLiveError
from personalive.locking import ProcessLock
from personalive.media.output import write_error

_LOCK = ".batch.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How a batch is done. `out` is the place of its results, its manifest and its report."""

    out: str
    ray: RayExecutorSettings = field(default_factory=RayExecutorSettings)
    max_attempts: int = 3
    """A job that ends its worker so many times in a row, without coming any further, is set aside."""
    retry_failed: bool = False
    overwrite: bool = False

    @property
    def uses_ray(self) -> bool:
        """Whether Ray is needed: for a cluster, or for more than one worker here."""
        return self.ray.address is not None or (self.ray.workers or 1) > 1


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of a batch. `report` is the place of the page."""

    totals: BatchTotals
    report: str
    previously_done: int
    """Jobs that an earlier run had done."""


def run_batch(
    jobs: Sequence[BatchJob],
    settings: BatchSettings,
    *,
    on_progress: Callable[[BatchProgress], None] | None = None,
    on_failure: Callable[[str, str], None] | None = None,
) -> BatchResult:
    """Do the jobs, and write a report. `on_progress` hears often how far it is, `on_failure` of a job and its reason.

    A job that fails is no exception. Ctrl-C stops the workers: the same call goes on then, as it does after
    anything else that ends this process.

    Raises `InputError` where the settings cannot be, `BusyError` where another batch is at work on that folder,
    `ClusterError` where no worker can be had, `MediaError` or `StorageError` where nothing can be written.
    """
    settings.ray.check()
    if settings.max_attempts < 1:
        raise InputError(f"A job must have one attempt at least, not {settings.max_attempts}.")
    say = on_progress or (lambda course: None)
    begun = time.monotonic()
    storage.make_folder(settings.out)
    with _lock_output_folder(settings.out):
        batch = JobTracker(
            jobs, Manifest.read(settings.out), max_attempts=settings.max_attempts, on_failure=on_failure
        )
        say(batch.progress("looking at what is there"))
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
    def keep(task: JobTask, outcome: JobResult) -> None:
        if outcome.thumbnail is not None:
            with contextlib.suppress(PersonaLiveError):  # only the report would be without it
                save_thumbnail(settings.out, task.name, outcome.thumbnail)

    if batch.finished:
        return
    if settings.uses_ray:
        run_on_ray(batch, settings.ray, on_progress=tell, on_result=keep)
    else:
        run_locally(batch, cache_bytes=settings.ray.cache_bytes, on_progress=tell, on_result=keep)


def _remove_orphaned_checkpoints(batch: JobTracker) -> None:
    """A worker keeps the segments of its last job until it begins another: one that died has left them.

    Looking costs next to nothing on a disk, and a request for each job in a store: there only after a loss.
    """
    lost = any(entry.attempts > 1 for _, entry in batch.records)
    for job, entry in batch.records:
        if entry.state is JobState.DONE and (lost or not storage.is_remote(job.output)):
            with contextlib.suppress(PersonaLiveError):
                remove_checkpoint(job.output)


@contextmanager
def _lock_output_folder(out: str) -> Iterator[None]:
    """Keep other batches out of a folder of this machine for the time of a block; a store knows no locks."""
    if storage.is_remote(out):
        yield
        return
    lock = ProcessLock(Path(out) / _LOCK)
    try:
        taken = lock.acquire()
    except OSError as error:
        raise write_error(Path(out), error) from error
    if not taken:
        raise OutputLockedError(f"Another batch is at work in {out}: wait for it to end.")
    try:
        yield
    finally:
        lock.release()
