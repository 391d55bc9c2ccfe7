"""Runs one job in a worker: downloads its files, makes and keeps its segments, and puts the result in place.

The messages between the executor and a worker are defined here.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from personalive.batch import storage
from personalive.batch.job_list import BatchJob
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


class ResultStatus(StrEnum):
    """How an attempt at a job ended."""

    DONE = "done"
    INVALID_INPUT = "refused"
    """The job cannot be done as it was given: another attempt would fail too."""
    NODE_UNSUITABLE = "unfit"
    """The job cannot be done on this machine: something that the pipeline needs is missing."""
    LOCKED = "busy"
    """The output is locked by another worker, mostly one that was considered dead too early."""
    ERROR = "broken"
    """A defect, or a store that does not answer: another attempt may succeed."""


@dataclass(frozen=True, slots=True)
class JobResult:
    """The result of an attempt. `reason` is set unless the job is done; `report` and `size` only if it is."""

    status: ResultStatus
    reason: str | None = None
    report: Report | None = None
    size: int = 0
    """Size of the output in bytes."""
    segments: int = 0
    """Segments finished in this attempt and before."""
    thumbnail: bytes | None = None
    """A JPEG of the result's middle frame."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """A worker's progress on its job."""

    name: str
    stage: str
    frames: int = 0
    segments: int = 0


@dataclass(slots=True)
class WorkerContext:
    """The state that a worker keeps between its jobs."""

    workspace: Workspace
    input_cache: InputCache
    pipeline_cache: PipelineCache
    on_progress: Callable[[JobProgress], None] = lambda standing: None
    """Called with a job's progress, in the thread of its phase."""
    non_resumable_pipelines: set[str] = field(default_factory=set)
    """Pipelines that turned out not to support resuming from a snapshot."""
    kept_outputs: set[str] = field(default_factory=set)
    """Outputs of jobs whose segments are kept until the tracker knows that the jobs are done."""
    pipeline_failed: bool = False
    """Whether a defect may have damaged the pipeline."""

    def remove_checkpoints(self, outputs: Iterable[str] | None = None) -> None:
        """Remove the checkpoints of the jobs with these outputs, or of all jobs."""
        for output in self.kept_outputs.intersection(self.kept_outputs if outputs is None else outputs):
            self.kept_outputs.discard(output)
            with contextlib.suppress(PersonaLiveError):
                remove_checkpoint(output)

    def reset_pipeline(self) -> None:
        """Close the pipeline after a defect, so that the next job loads a new one. No job may be using it."""
        if self.pipeline_failed:
            self.pipeline_failed = False
            with contextlib.suppress(Exception):
                self.pipeline_cache.close()

    def run_in_phases(self, task: BatchJob) -> Phases[JobResult]:
        """Run a job in phases and return its result. Only exceptions like `KeyboardInterrupt` are raised.

        The caller must call `remove_checkpoints`, and `reset_pipeline` if `pipeline_failed` is True afterwards.
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
        except Exception as error:  # a defect, here or in a pipeline, must not end the batch
            self.pipeline_failed = True
            return work.make_result(ResultStatus.ERROR, _describe_error(error))
        if outcome.segments:
            self.kept_outputs.add(task.output)
        return outcome


@contextmanager
def open_worker_context(
    cache_bytes: int, on_progress: Callable[[JobProgress], None]
) -> Iterator[WorkerContext]:
    """Yield a worker's context. Raises `MediaError` where no temporary files can be written."""
    with Workspace() as scratch, PipelineCache() as shared:
        context = WorkerContext(
            scratch, InputCache(scratch.make_folder("inputs"), cache_bytes), shared, on_progress
        )
        yield context
        context.remove_checkpoints()


class _JobAttempt:
    def __init__(self, context: WorkerContext, task: BatchJob) -> None:
        self._context = context
        self._task = task
        self._segments = 0
        self._frames = 0
        self._stage = ""

    def make_result(self, status: ResultStatus, reason: str) -> JobResult:
        return JobResult(status, reason, segments=self._segments)

    def run(self) -> Phases[JobResult]:
        task, inputs = self._task, self._context.input_cache
        self._report_progress("downloading the files", 0, None)
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
            # The tracker decided whether the output may be replaced before it handed out the job.
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
        """Yield an empty folder, which is removed after the job."""
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
    """Describe a defect in one line, with the file and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
