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
from personalive.batch.job_tracker import Batch, Course
from personalive.batch.local_executor import work_here
from personalive.batch.manifest import JobState, Manifest
from personalive.batch.ray_executor import CrewSettings, work_on_ray
from personalive.batch.remote_workdir import remove_leftovers
from personalive.batch.report import Totals, keep_picture, write_report
from personalive.batch.worker import Outcome, Task
from personalive.errors import BusyError, InputError, PersonaLiveError
from personalive.locking import ProcessLock
from personalive.media.output import write_failure

_LOCK = ".batch.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How a batch is done. `out` is the place of its results, its manifest and its report."""

    out: str
    crew: CrewSettings = field(default_factory=CrewSettings)
    max_attempts: int = 3
    """A job that ends its worker so many times in a row, without coming any further, is set aside."""
    retry_failed: bool = False
    overwrite: bool = False

    @property
    def on_ray(self) -> bool:
        """Whether Ray is needed: for a cluster, or for more than one worker here."""
        return self.crew.address is not None or (self.crew.workers or 1) > 1


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What came of a batch. `report` is the place of the page."""

    totals: Totals
    report: str
    earlier: int
    """Jobs that an earlier run had done."""


def run_batch(
    jobs: Sequence[BatchJob],
    settings: BatchSettings,
    *,
    tell: Callable[[Course], None] | None = None,
    on_failure: Callable[[str, str], None] | None = None,
) -> BatchResult:
    """Do the jobs, and write a report. `tell` hears often how far it is, `on_failure` of a job and its reason.

    A job that fails is no exception. Ctrl-C stops the workers: the same call goes on then, as it does after
    anything else that ends this process.

    Raises `InputError` where the settings cannot be, `BusyError` where another batch is at work on that folder,
    `ClusterError` where no worker can be had, `MediaError` or `StorageError` where nothing can be written.
    """
    settings.crew.check()
    if settings.max_attempts < 1:
        raise InputError(f"A job must have one attempt at least, not {settings.max_attempts}.")
    say = tell or (lambda course: None)
    begun = time.monotonic()
    storage.make_folder(settings.out)
    with _only_one(settings.out):
        batch = Batch(
            jobs, Manifest.read(settings.out), max_attempts=settings.max_attempts, on_failure=on_failure
        )
        say(batch.course("looking at what is there"))
        batch.open(overwrite=settings.overwrite, retry_failed=settings.retry_failed)
        try:
            _work(batch, settings, lambda stage: say(batch.course(stage)))
        finally:
            batch.stop()
            batch.save(now=True)
        say(batch.course("writing the report"))
        _remove_what_the_lost_left(batch)
        page = write_report(settings.out, batch.entries, time.monotonic() - begun)
        return BatchResult(Totals.of(batch.entries), page, batch.earlier)


def _work(batch: Batch, settings: BatchSettings, tell: Callable[[str], None]) -> None:
    def keep(task: Task, outcome: Outcome) -> None:
        if outcome.picture is not None:
            with contextlib.suppress(PersonaLiveError):  # only the report would be without it
                keep_picture(settings.out, task.name, outcome.picture)

    if batch.finished:
        return
    if settings.on_ray:
        work_on_ray(batch, settings.crew, tell=tell, keep=keep)
    else:
        work_here(batch, cache_bytes=settings.crew.cache_bytes, tell=tell, keep=keep)


def _remove_what_the_lost_left(batch: Batch) -> None:
    """A worker keeps the segments of its last job until it begins another: one that died has left them.

    Looking costs next to nothing on a disk, and a request for each job in a store: there only after a loss.
    """
    lost = any(entry.attempts > 1 for _, entry in batch.entries)
    for job, entry in batch.entries:
        if entry.state is JobState.DONE and (lost or not storage.is_url(job.output)):
            with contextlib.suppress(PersonaLiveError):
                remove_leftovers(job.output)


@contextmanager
def _only_one(out: str) -> Iterator[None]:
    """Keep other batches out of a folder of this machine for the time of a block; a store knows no locks."""
    if storage.is_url(out):
        yield
        return
    lock = ProcessLock(Path(out) / _LOCK)
    try:
        taken = lock.take()
    except OSError as error:
        raise write_failure(Path(out), error) from error
    if not taken:
        raise BusyError(f"Another batch is at work in {out}: wait for it to end.")
    try:
        yield
    finally:
        lock.release()
