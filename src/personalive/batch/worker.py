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
from personalive.batch.remote_workdir import Mirror, remove_leftovers
from personalive.batch.thumbnail import thumbnail
from personalive.batch.workspace import InputCache, Scratch
from personalive.errors import (
    BusyError,
    CannotResumeError,
    PersonaLiveError,
    PipelineUnavailableError,
    StorageError,
    WeightsError,
)
from personalive.jobs import AnimateJob, Report
from personalive.jobs.animate import in_phases
from personalive.jobs.checkpoint_dir import WorkFolder
from personalive.jobs.phases import Phases
from personalive.jobs.pipeline_cache import Shared

_LAST_LINES = 6


@dataclass(frozen=True, slots=True)
class Task:
    """A job as a worker is told it. Places are absolute; `options` are fields of `AnimateJob`."""

    name: str
    reference: str
    driving: str
    output: str
    in_segments: bool
    options: Mapping[str, Any]


class Ending(StrEnum):
    """How an attempt at a job came out."""

    DONE = "done"
    REFUSED = "refused"
    """It cannot be done as it was given: trying again would be in vain."""
    UNFIT = "unfit"
    """Not on this machine: something that the pipeline needs is missing."""
    BUSY = "busy"
    """Somebody else is at it: most often a worker that was given up too early."""
    BROKEN = "broken"
    """By a defect, or a store that does not answer: trying again may help."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt. `reason` is there unless it is done, `report` and `size` only then."""

    ending: Ending
    reason: str | None = None
    report: Report | None = None
    size: int = 0
    """Of the output, in bytes."""
    segments: int = 0
    """Finished, in this attempt and before."""
    picture: bytes | None = None
    """A JPEG of the result's middle frame."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a worker is with its job."""

    name: str
    stage: str
    frames: int = 0
    segments: int = 0


@dataclass(slots=True)
class Bench:
    """What a worker keeps between its jobs."""

    scratch: Scratch
    inputs: InputCache
    shared: Shared
    heard: Callable[[Standing], None] = lambda standing: None
    """Called from within a job, in the thread of its phase, with how far it is."""
    unsplit: set[str] = field(default_factory=set)
    """Pipelines found not to be able to go on from a snapshot."""
    kept: set[str] = field(default_factory=set)
    """The outputs of jobs whose segments are kept, until whoever hands out the work knows that they are done."""
    spoiled: bool = False
    """Whether a defect may have done something to the pipeline."""

    def clear(self, outputs: Iterable[str] | None = None) -> None:
        """Remove what is kept of the jobs with these outputs, or of all."""
        for output in self.kept.intersection(self.kept if outputs is None else outputs):
            self.kept.discard(output)
            with contextlib.suppress(PersonaLiveError):
                remove_leftovers(output)

    def renew(self) -> None:
        """After a defect, have the next job load a new pipeline. No job may be at work on the old one."""
        if self.spoiled:
            self.spoiled = False
            with contextlib.suppress(Exception):
                self.shared.close()

    def in_phases(self, task: Task) -> Phases[Outcome]:
        """Do a job, in phases, and say what came of it. Only Ctrl-C and its like pass through.

        `clear`, and `renew` where the pipeline is `spoiled` then, are for the caller.
        """
        work = _Work(self, task)
        try:
            outcome = yield from work.do()
        except BusyError as error:
            return work.ended(Ending.BUSY, str(error))
        except (PipelineUnavailableError, WeightsError) as error:
            return work.ended(Ending.UNFIT, str(error))
        except StorageError as error:
            return work.ended(Ending.BROKEN, str(error))
        except PersonaLiveError as error:
            return work.ended(Ending.REFUSED, str(error))
        except Exception as error:  # a defect, ours or a pipeline's, must not end the batch
            self.spoiled = True
            return work.ended(Ending.BROKEN, _described(error))
        if outcome.segments:
            self.kept.add(task.output)
        return outcome


@contextmanager
def open_bench(cache_bytes: int, heard: Callable[[Standing], None]) -> Iterator[Bench]:
    """A worker's things for the time of a block. Raises `MediaError` where it can write no temporary files."""
    with Scratch() as scratch, Shared() as shared:
        bench = Bench(scratch, InputCache(scratch.folder("inputs"), cache_bytes), shared, heard)
        yield bench
        bench.clear()


class _Work:
    def __init__(self, bench: Bench, task: Task) -> None:
        self._bench = bench
        self._task = task
        self._segments = 0
        self._frames = 0
        self._stage = ""

    def ended(self, ending: Ending, reason: str) -> Outcome:
        return Outcome(ending, reason, segments=self._segments)

    def do(self) -> Phases[Outcome]:
        task, inputs = self._task, self._bench.inputs
        self._tell("fetching the files", 0, None)
        with inputs.local(task.reference) as reference, inputs.local(task.driving) as driving:
            if not storage.is_url(task.output):
                storage.make_folder(storage.parent_of(task.output))
                return (yield from self._made(self._job(reference, driving, Path(task.output))))
            with self._workplace() as folder:
                return (yield from self._made_for_store(reference, driving, folder))

    def _job(self, reference: Path, driving: Path, output: Path) -> AnimateJob:
        resume = (
            self._task.in_segments and self._task.options.get("pipeline", "auto") not in self._bench.unsplit
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

    def _made_for_store(self, reference: Path, driving: Path, folder: Path) -> Phases[Outcome]:
        job = self._job(reference, driving, folder / storage.name_of(self._task.output))
        mirror = Mirror(job.output, self._task.output)
        if job.resume:
            mirror.fetch()
        outcome = yield from self._made(job, mirror.push)
        self._tell("uploading", self._frames, None)
        storage.put(job.output, self._task.output)
        return outcome

    @contextmanager
    def _workplace(self) -> Iterator[Path]:
        """An empty folder for the time of the job."""
        folder = self._bench.scratch.folder(hashlib.sha256(self._task.output.encode()).hexdigest()[:16])
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _made(self, job: AnimateJob, keep: Callable[[WorkFolder], None] | None = None) -> Phases[Outcome]:
        def on_segment(folder: WorkFolder) -> None:
            if keep is not None:
                keep(folder)
            self._segments, self._frames = len(folder.state.segments), folder.state.frames
            self._tell(self._stage, self._frames, None)

        try:
            shared = self._bench.shared
            report = yield from in_phases(
                job, self._tell, shared=shared, on_segment=on_segment, keep_work=True
            )
        except CannotResumeError:
            self._bench.unsplit.add(job.pipeline)
            plain = self._job(job.reference, job.driving, job.output)
            report = yield from in_phases(plain, self._tell, shared=self._bench.shared)
        size = job.output.stat().st_size
        return Outcome(Ending.DONE, None, report, size, self._segments, thumbnail(job.output, report))

    def _tell(self, stage: str, done: int, total: int | None) -> None:
        del total
        self._stage, self._frames = stage, max(done, self._frames)
        self._bench.heard(Standing(self._task.name, stage, self._frames, self._segments))


def _described(error: Exception) -> str:
    """A defect in one line, and where it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
