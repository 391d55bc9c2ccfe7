"""One job, done by one worker: its files fetched, its segments made and kept, its result put in place.

Everything that is said between the one who hands out the work and a worker is defined here.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from personalive.batch import storage
from personalive.batch.remote_workdir import RemoteWorkdir, remove_checkpoint
from personalive.batch.thumbnail import make_thumbnail
from personalive.batch.workspace import InputCache, Workspace
from personalive.errors import (
    CannotResumeError,
    OutputLockedError,
    PersonaLiveError,
    PipelineUnavailableError,
    RemoteStorageError,
    WeightsError,
)
from personalive.jobs import AnimateJob, Report
from personalive.jobs.animate import run_in_phases
from personalive.jobs.checkpoint_dir import CheckpointDir
from personalive.jobs.phases import Phases
from personalive.jobs.pipeline_cache import PipelineCache

_LAST_LINES = 6


@dataclass(frozen=True, slots=True)
class JobTask:
    """A job as a worker is told it. Places are absolute; `options` are fields of `AnimateJob`."""

    name: str
    reference: str
    driving: str
    output: str
    is_resumable: bool
    options: Mapping[str, Any]


class ResultStatus(StrEnum):
    """How an attempt at a job came out."""

    DONE = "done"
    INVALID_INPUT = "refused"
    """It cannot be done as it was given: trying again would be in vain."""
    NODE_UNSUITABLE = "unfit"
    """Not on this machine: something that the pipeline needs is missing."""
    LOCKED = "busy"
    """Somebody else is at it: most often a worker that was given up too early."""
    ERROR = "broken"
    """By a defect, or a store that does not answer: trying again may help."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """What came of an attempt. `reason` is there unless it is done, `report` and `size` only then."""

    status: ResultStatus
    reason: str | None = None
    report: Report | None = None
    size: int = 0
    """Of the output, in bytes."""
    segments: int = 0
    """Finished, in this attempt and before."""
    thumbnail: bytes | None = None
    """A JPEG of the result's middle frame."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a worker is with its job."""

    name: str
    stage: str
    frames: int = 0
    segments: int = 0


@dataclass(slots=True)
class WorkerContext:
    """What a worker keeps between its jobs."""

    workspace: Workspace
    input_cache: InputCache
    pipeline_cache: PipelineCache
    on_progress: Callable[[JobProgress], None] = lambda standing: None
    """Called from within a job, in the thread of its phase, with how far it is."""
    non_resumable_pipelines: set[str] = field(default_factory=set)
    """Pipelines found not to be able to go on from a snapshot."""
    kept_outputs: set[str] = field(default_factory=set)
    """The outputs of jobs whose segments are kept, until whoever hands out the work knows that they are done."""
    pipeline_failed: bool = False
    """Whether a defect may have done something to the pipeline."""

    def remove_checkpoints(self, outputs: Iterable[str] | None = None) -> None:
        """Remove what is kept of the jobs with these outputs, or of all."""
        for output in self.kept_outputs.intersection(self.kept_outputs if outputs is None else outputs):
            self.kept_outputs.discard(output)
            with contextlib.suppress(PersonaLiveError):
                remove_checkpoint(output)

    def reset_pipeline(self) -> None:
        """After a defect, have the next job load a new pipeline. No job may be at work on the old one."""
        if self.pipeline_failed:
            self.pipeline_failed = False
            with contextlib.suppress(Exception):
                self.pipeline_cache.close()

    def run_in_phases(self, task: JobTask) -> Phases[JobResult]:
        """Do a job, in phases, and say what came of it. Only Ctrl-C and its like pass through.

        `remove_checkpoints`, and `reset_pipeline` where the pipeline is `pipeline_failed` then, are for the caller.
        """
        work = _JobAttempt(self, task)
        try:
            outcome = yield from work.run()
        except OutputLockedError as error:
            return work.make_result(ResultStatus.LOCKED, str(error))
        except (PipelineUnavailableError, WeightsError) as error:
            return work.make_result(ResultStatus.NODE_UNSUITABLE, str(error))
        except RemoteStorageError as error:
            return work.make_result(ResultStatus.ERROR, str(error))
        except PersonaLiveError as error:
            return work.make_result(ResultStatus.INVALID_INPUT, str(error))
        except Exception as error:  # a defect, ours or a pipeline's, must not end the batch
            self.pipeline_failed = True
            return work.make_result(ResultStatus.ERROR, _describe_error(error))
        if outcome.segments:
            self.kept_outputs.add(task.output)
        return outcome


@contextmanager
def open_worker_context(
    cache_bytes: int, on_progress: Callable[[JobProgress], None]
) -> Iterator[WorkerContext]:
    """A worker's things for the time of a block. Raises `MediaError` where it can write no temporary files."""
    with Workspace() as scratch, PipelineCache() as shared:
        bench = WorkerContext(
            scratch, InputCache(scratch.make_folder("inputs"), cache_bytes), shared, on_progress
        )
        yield bench
        bench.remove_checkpoints()


class _JobAttempt:
    def __init__(self, bench: WorkerContext, task: JobTask) -> None:
        self._context = bench
        self._task = task
        self._segments = 0
        self._frames = 0
        self._stage = ""

    def make_result(self, status: ResultStatus, reason: str) -> JobResult:
        return JobResult(status, reason, segments=self._segments)

    def run(self) -> Phases[JobResult]:
        task, inputs = self._task, self._context.input_cache
        self._report_progress("fetching the files", 0, None)
        with inputs.open_local(task.reference) as reference, inputs.open_local(task.driving) as driving:
            if not storage.is_remote(task.output):
                storage.make_folder(storage.parent_uri(task.output))
                return (yield from self._run_job(self._make_job(reference, driving, Path(task.output))))
            with self._open_workdir() as folder:
                return (yield from self._run_for_store(reference, driving, folder))

    def _make_job(self, reference: Path, driving: Path, output: Path) -> AnimateJob:
        resume = (
            self._task.is_resumable
            and self._task.options.get("pipeline", "auto") not in self._context.non_resumable_pipelines
        )
        return AnimateJob(
            reference=reference,
            driving=driving,
            output=output,
            # Whether the output may be replaced was decided before the job was handed out.
            overwrite=True,
            resume=resume,
            **self._task.options,
        )

    def _run_for_store(self, reference: Path, driving: Path, folder: Path) -> Phases[JobResult]:
        job = self._make_job(reference, driving, folder / storage.file_name(self._task.output))
        mirror = RemoteWorkdir(job.output, self._task.output)
        if job.resume:
            mirror.download()
        outcome = yield from self._run_job(job, mirror.upload)
        self._report_progress("uploading", self._frames, None)
        storage.upload(job.output, self._task.output)
        return outcome

    @contextmanager
    def _open_workdir(self) -> Iterator[Path]:
        """An empty folder for the time of the job."""
        folder = self._context.workspace.make_folder(
            hashlib.sha256(self._task.output.encode()).hexdigest()[:16]
        )
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run_job(
        self, job: AnimateJob, keep: Callable[[CheckpointDir], None] | None = None
    ) -> Phases[JobResult]:
        def on_segment(folder: CheckpointDir) -> None:
            if keep is not None:
                keep(folder)
            self._segments, self._frames = len(folder.state.segments), folder.state.frames
            self._report_progress(self._stage, self._frames, None)

        try:
            shared = self._context.pipeline_cache
            report = yield from run_in_phases(
                job, self._report_progress, pipeline_cache=shared, on_segment=on_segment, keep_checkpoint=True
            )
        except CannotResumeError:
            self._context.non_resumable_pipelines.add(job.pipeline)
            plain = self._make_job(job.reference, job.driving, job.output)
            report = yield from run_in_phases(
                plain, self._report_progress, pipeline_cache=self._context.pipeline_cache
            )
        size = job.output.stat().st_size
        return JobResult(
            ResultStatus.DONE, None, report, size, self._segments, make_thumbnail(job.output, report)
        )

    def _report_progress(self, stage: str, done: int, total: int | None) -> None:
        del total
        self._stage, self._frames = stage, max(done, self._frames)
        self._context.on_progress(JobProgress(self._task.name, stage, self._frames, self._segments))


def _describe_error(error: Exception) -> str:
    """A defect in one line, and where it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
