"""The books of a batch: what is to be done, who has it, what came of it. One process keeps them.

A crew (`here.py`, `crew.py`) takes tasks from it and tells what became of them; how the work is done, or where,
is no matter here.
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
from personalive.batch.manifest import Entry, JobState, Manifest
from personalive.batch.remote_workdir import finished_segments
from personalive.batch.scheduler import Schedule
from personalive.batch.worker import Ending, Outcome, Standing, Task

HERE = "this process"
"""The worker of a batch that is done in the process that keeps the books."""

_ASKED_AT_ONCE = 16
"""Questions to stores about files: each takes some tens of milliseconds, most of it waiting."""
_BUSY_SECONDS = 2.0
_BUSY_AT_MOST = 60
_RATE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Course:
    """How far a batch is. `earlier` of the `done` jobs were done by an earlier run."""

    stage: str
    total: int
    done: int
    failed: int
    earlier: int
    running: int
    frames_per_second: float
    """Of all workers together, lately."""


@dataclass(slots=True)
class _Attempt:
    """A job in a worker's hands."""

    job: BatchJob
    worker: str
    standing: Standing
    begun: float = field(default_factory=time.monotonic)


class Batch:
    """The jobs of one batch and what is known of each.

    `max_attempts`: a job that ends its worker, or breaks, so many times without coming any further is set aside.
    `on_failure` hears the name of every job that fails now, and why.
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
        """By the job's name."""
        self._busy: Counter[str] = Counter()
        self._schedule = Schedule(())
        self.earlier = 0
        """Jobs that an earlier run had done."""
        self._frames: deque[tuple[float, int]] = deque()
        self._counts: Counter[JobState] = Counter()

    # Beginning

    def open(self, *, overwrite: bool = False, retry_failed: bool = False) -> None:
        """Look at what is there, and decide which jobs are to be done.

        Done jobs whose inputs, options and output are as they were are left; so are failed ones, unless
        `retry_failed`. A file that this batch has not made is replaced only if `overwrite`.
        """
        jobs = list(self._jobs.values())
        stamps = _stamps({place for job in jobs for place in (job.reference, job.driving, job.output)})
        waiting = []
        for job in jobs:
            key = _key(job, stamps)
            self._keys[job.name] = key
            entry = self._judged(job, key, stamps[job.output], overwrite=overwrite, retry=retry_failed)
            if entry.state is JobState.PENDING:
                waiting.append(job)
            if entry.state is JobState.FAILED and entry != self._manifest.get(job.name):
                self._on_failure(entry.name, entry.reason or "")
            self._manifest.set(entry)
            self._counts[entry.state] += 1
        self.earlier = self._counts[JobState.DONE]
        self._schedule = Schedule(waiting)
        self._manifest.save(now=True)

    def _judged(
        self, job: BatchJob, key: str, output: storage.Stamp | None, *, overwrite: bool, retry: bool
    ) -> Entry:
        known = self._manifest.get(job.name)
        anew = Entry(name=job.name, key=key)
        if known.attempts == 0 and output is not None and not overwrite:
            reason = f"{job.output} exists already: name another output, or allow overwriting (-y)."
            return anew.model_copy(update={"state": JobState.FAILED, "reason": reason})
        if known.key != key or known.attempts == 0:
            # Its attempts say that what lies at the output's place is ours to replace.
            return anew.model_copy(update={"attempts": known.attempts})
        if known.state is JobState.DONE:
            same = output is not None and output.size == known.size
            return known if same else anew.model_copy(update={"attempts": known.attempts})
        if known.state is JobState.FAILED:
            again = known.model_copy(update={"state": JobState.PENDING, "reason": None, "crashes": 0})
            return again if retry else known
        if known.state is JobState.RUNNING and known.worker == HERE:
            known = _further(known, finished_segments(job.output))
            return self._crashed(known, "the process ended at it")
        return known.model_copy(update={"state": JobState.PENDING})

    # What a crew asks and tells

    @property
    def finished(self) -> bool:
        """Whether nothing waits and nobody is at work."""
        return not self._attempts and not len(self._schedule)

    @property
    def waiting(self) -> int:
        """How many jobs nobody is at."""
        return len(self._schedule)

    def take(self, worker: str, node: str, *, ahead: bool = False) -> Task | None:
        """The next job for a worker on a node; None where there is none for it now.

        `ahead`: to be begun beside the one that the worker has. A job that may end its worker is never done beside
        another: nobody could tell which of them it was.
        """
        if ahead and any(self._suspect(one.job) for one in self._attempts.values() if one.worker == worker):
            return None
        job = self._schedule.take(worker, node)
        if job is None:
            return None
        if ahead and self._suspect(job):
            self._schedule.give_back(job)
            return None
        self._attempts[job.name] = _Attempt(job, worker, Standing(job.name, "beginning"))
        entry = self._manifest[job.name]
        self._set(
            entry.model_copy(
                update={"state": JobState.RUNNING, "attempts": entry.attempts + 1, "worker": worker}
            )
        )
        # In this process a job may take the books down with it: then they must say which it was.
        self._manifest.save(now=worker == HERE)
        return Task(job.name, job.reference, job.driving, job.output, job.in_segments, job.options)

    def _suspect(self, job: BatchJob) -> bool:
        """Whether the next end of its worker would count against a job that it might have to share it with."""
        return self._max_attempts == 1 or self._manifest[job.name].crashes > 0

    def heard(self, worker: str, standing: Standing) -> None:
        """How far a worker is with a job."""
        attempt = self._attempts.get(standing.name)
        if attempt is None or attempt.worker != worker:
            return
        before, attempt.standing = attempt.standing, standing
        self._came_further(standing.name, standing.segments)
        if before.stage == standing.stage == "animating" and standing.frames > before.frames:
            self._frames.append((time.monotonic(), standing.frames - before.frames))

    def ended(self, name: str, node: str, outcome: Outcome) -> None:
        """The attempt at the job of that name, by a worker on a node, has come to an end."""
        job = self._attempts.pop(name).job
        entry = self._manifest[job.name]
        reason = outcome.reason or ""
        match outcome.ending:
            case Ending.DONE:
                self._set(_done(entry, outcome))
            case Ending.REFUSED:
                self._fail(entry, reason)
            case Ending.UNFIT:
                self._schedule.refuse(job, node, reason)
                self._again(entry, job)
            case Ending.BUSY:
                self._busy[job.name] += 1
                if self._busy[job.name] > _BUSY_AT_MOST:
                    self._fail(entry, reason)
                else:
                    self._again(entry, job, seconds=_BUSY_SECONDS)
            case Ending.BROKEN:
                self._came_further(job.name, outcome.segments)
                self._broke(job, reason)

    def lost(self, worker: str, reason: str) -> None:
        """A worker is gone, and with it what it had not finished."""
        self._schedule.leave(worker)
        for attempt in [one for one in self._attempts.values() if one.worker == worker]:
            del self._attempts[attempt.job.name]
            # It may have got further than it was asked.
            self._came_further(attempt.job.name, finished_segments(attempt.job.output))
            self._broke(attempt.job, f"the worker died at it: {reason}")

    def give_up_hopeless(self, nodes: Iterable[str]) -> None:
        """Set aside what none of the nodes, which are all there are, is fit for."""
        for job, reason in self._schedule.hopeless(set(nodes)):
            self._fail(self._manifest[job.name], reason)

    def stop(self) -> None:
        """Nobody works any more: what was begun waits again. The attempts do not count."""
        for attempt in self._attempts.values():
            entry = self._manifest[attempt.job.name]
            self._set(entry.model_copy(update={"state": JobState.PENDING}))
        self._attempts.clear()

    def save(self, *, now: bool = False) -> None:
        """Write the manifest, if there is something new to write and it was not written just before."""
        self._manifest.save(now=now)

    # What came of it

    @property
    def entries(self) -> list[tuple[BatchJob, Entry]]:
        """Every job and what is known of it, in the order of the table."""
        return [(job, self._manifest[name]) for name, job in self._jobs.items()]

    def course(self, stage: str = "") -> Course:
        """How far it is; `stage` where there is something to say of the whole."""
        return Course(
            stage=stage,
            total=len(self._jobs),
            done=self._counts[JobState.DONE],
            failed=self._counts[JobState.FAILED],
            earlier=self.earlier,
            running=len(self._attempts),
            frames_per_second=self._rate(),
        )

    def _rate(self) -> float:
        now = time.monotonic()
        while self._frames and self._frames[0][0] < now - _RATE_SECONDS:
            self._frames.popleft()
        if len(self._frames) < 2:
            return 0.0
        return sum(count for _, count in self._frames) / max(now - self._frames[0][0], 1e-3)

    # How an entry changes

    def _set(self, entry: Entry) -> None:
        before = self._manifest[entry.name].state
        self._counts[before] -= 1
        self._counts[entry.state] += 1
        self._manifest.set(entry)

    def _fail(self, entry: Entry, reason: str) -> None:
        self._set(entry.model_copy(update={"state": JobState.FAILED, "reason": reason}))
        self._on_failure(entry.name, reason)

    def _again(self, entry: Entry, job: BatchJob, seconds: float = 0.0) -> None:
        """Back to the others, as if it had not been taken up."""
        self._set(entry.model_copy(update={"state": JobState.PENDING, "attempts": entry.attempts - 1}))
        self._schedule.give_back(job, seconds=seconds)

    def _came_further(self, name: str, segments: int) -> None:
        entry = self._manifest[name]
        if (further := _further(entry, segments)) is not entry:
            self._set(further)

    def _crashed(self, entry: Entry, reason: str) -> Entry:
        """After an attempt without a result: to be tried again, or set aside."""
        crashes = entry.crashes + 1
        if crashes < self._max_attempts:
            return entry.model_copy(update={"state": JobState.PENDING, "crashes": crashes})
        reason = f"{reason} (set aside after {crashes} attempts)"
        return entry.model_copy(update={"state": JobState.FAILED, "crashes": crashes, "reason": reason})

    def _broke(self, job: BatchJob, reason: str) -> None:
        entry = self._crashed(self._manifest[job.name], reason)
        if entry.state is JobState.FAILED:
            self._fail(entry, entry.reason or "")
        else:
            self._set(entry)
            self._schedule.give_back(job)


def _further(entry: Entry, segments: int) -> Entry:
    """A finished segment wipes out the crashes before it: machines that are taken away now and then must not end a
    long job."""
    if segments <= entry.segments:
        return entry
    return entry.model_copy(update={"segments": segments, "crashes": 0})


def _done(entry: Entry, outcome: Outcome) -> Entry:
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


def _stamps(places: Iterable[str]) -> dict[str, storage.Stamp | None]:
    ordered = list(places)
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        return dict(zip(ordered, pool.map(storage.stamp, ordered), strict=True))


def _key(job: BatchJob, stamps: Mapping[str, storage.Stamp | None]) -> str:
    parts = [job.description, str(stamps[job.reference]), str(stamps[job.driving])]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
