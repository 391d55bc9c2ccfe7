from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from personalive.batch.job_list import BatchJob
from personalive.batch.job_tracker import LOCAL_WORKER, JobTracker
from personalive.batch.manifest import JobRecord, JobState, Manifest
from personalive.batch.worker import JobProgress, JobResult, ResultStatus
from personalive.jobs import Report
from personalive.jobs.checkpoint_dir import CheckpointDir, CheckpointState
from personalive.pipelines.base import FrameState

DONE, FAILED, PENDING, RUNNING = JobState.DONE, JobState.FAILED, JobState.PENDING, JobState.RUNNING


@pytest.fixture
def jobs(tmp_path: Path) -> list[BatchJob]:
    """Three jobs whose inputs are there."""
    made = []
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
        made.append(
            BatchJob(
                name=f"{name}.mp4",
                reference=str(tmp_path / f"{name}.png"),
                driving=str(tmp_path / "a.png"),
                output=str(tmp_path / "out" / f"{name}.mp4"),
                options={"parameters": {}},
            )
        )
    (tmp_path / "out").mkdir()
    return made


def opened(jobs: list[BatchJob], *, max_attempts: int = 3, **options: bool) -> JobTracker:
    out = str(Path(jobs[0].output).parent)
    batch = JobTracker(jobs, Manifest.read(out), max_attempts=max_attempts)
    batch.load(**options)
    return batch


def states(batch: JobTracker) -> list[JobState]:
    return [entry.state for _, entry in batch.records]


def entry(batch: JobTracker, name: str) -> JobRecord:
    return next(entry for _, entry in batch.records if entry.name == name)


def done(job: BatchJob, size: int = 4) -> JobResult:
    Path(job.output).write_bytes(b"x" * size)
    report = Report(
        Path(job.output), "echo", "Echo", "asked", 8, 8, 25.0, 10, 2.0, {FrameState.ANIMATED: 10}, (), ("w",)
    )
    return JobResult(ResultStatus.DONE, None, report, size, 2)


def test_what_is_done_is_left_next_time(jobs: list[BatchJob]) -> None:
    batch = opened(jobs)
    for job in jobs[:2]:
        task = batch.take("w", "n")
        assert task is not None
        assert task.output == job.output
        assert entry(batch, job.name).state is RUNNING
        batch.on_result(job.name, "n", done(job))
    batch.save(now=True)
    assert (batch.progress().done, batch.progress().total, batch.waiting_count) == (2, 3, 1)
    again = opened(jobs)
    assert states(again) == [DONE, DONE, PENDING]
    assert again.previously_done == 2
    assert entry(again, "a.mp4").notes == ("w",)


@pytest.mark.parametrize("change", ["reference", "options", "output is gone", "output has another size"])
def test_what_has_changed_is_done_again(jobs: list[BatchJob], change: str) -> None:
    batch = opened(jobs[:1])
    batch.take("w", "n")
    batch.on_result(jobs[0].name, "n", done(jobs[0]))
    batch.save(now=True)
    changed = jobs[0]
    match change:
        case "reference":
            Path(changed.reference).write_bytes(b"other")
        case "options":
            changed = BatchJob(
                changed.name,
                changed.reference,
                changed.driving,
                changed.output,
                {"size": 256, "parameters": {}},
            )
        case "output is gone":
            Path(changed.output).unlink()
        case _:
            Path(changed.output).write_bytes(b"short")
    assert states(opened([changed])) == [PENDING]


def test_a_strangers_file_is_not_replaced(jobs: list[BatchJob]) -> None:
    Path(jobs[1].output).write_bytes(b"mine")
    batch = opened(jobs)
    assert states(batch) == [PENDING, FAILED, PENDING]
    assert "exists already: name another output" in (entry(batch, "b.mp4").reason or "")
    assert states(opened(jobs)) == [PENDING, FAILED, PENDING]
    assert states(opened(jobs, overwrite=True)) == [PENDING] * 3
    assert states(opened(jobs)) == [PENDING, FAILED, PENDING]
    Path(jobs[1].output).unlink()
    assert states(opened(jobs)) == [PENDING] * 3


def test_what_was_refused_is_not_tried_again_unless_asked(jobs: list[BatchJob]) -> None:
    batch = opened(jobs[:1])
    batch.take("w", "n")
    batch.on_result(jobs[0].name, "n", JobResult(ResultStatus.INVALID_INPUT, "No face."))
    assert batch.finished
    batch.save(now=True)
    again = opened(jobs[:1])
    assert (states(again), entry(again, "a.mp4").reason) == ([FAILED], "No face.")
    assert states(opened(jobs[:1], retry_failed=True)) == [PENDING]


def test_a_job_that_ends_its_workers_is_set_aside(jobs: list[BatchJob]) -> None:
    heard: list[tuple[str, str]] = []
    batch = opened(jobs[:1])
    batch._on_failure = lambda name, reason: heard.append((name, reason))
    for attempt in range(3):
        assert entry(batch, "a.mp4").crashes == attempt
        assert batch.take(f"w{attempt}", "n") is not None
        batch.on_worker_lost(f"w{attempt}", "killed.")
    assert batch.finished
    assert heard == [("a.mp4", "the worker died at it: killed. (set aside after 3 attempts)")]
    assert entry(batch, "a.mp4").attempts == 3


def test_a_long_job_may_lose_many_workers(jobs: list[BatchJob]) -> None:
    batch = opened(jobs[:1])
    for attempt in range(9):
        assert batch.take("w", "n") is not None
        batch.on_progress("w", JobProgress("a.mp4", "animating", 10 * attempt + 10, attempt + 1))
        batch.on_worker_lost("w", "killed.")
    assert entry(batch, "a.mp4").crashes == 1
    assert not batch.finished


def test_a_lost_worker_may_have_got_further_than_it_said(jobs: list[BatchJob]) -> None:
    batch = opened(jobs[:1])
    with CheckpointDir(Path(jobs[0].output), {}, overwrite=True) as work:
        for attempt in range(5):
            assert batch.take("w", "n") is not None
            work.next_segment.write_bytes(b"frames")
            work.save(CheckpointState(segments=work.add_segment(8)), b"")
            batch.on_worker_lost("w", "killed.")
            assert (entry(batch, "a.mp4").segments, entry(batch, "a.mp4").crashes) == (attempt + 1, 1)
    for _ in range(2):
        assert batch.take("w", "n") is not None
        batch.on_worker_lost("w", "killed.")
    assert states(batch) == [FAILED]


def test_a_job_in_this_process_that_took_it_down_counts(jobs: list[BatchJob]) -> None:
    for _ in range(3):
        batch = opened(jobs[:1])
        assert batch.take(LOCAL_WORKER, LOCAL_WORKER) is not None
    batch = opened(jobs[:1])
    assert states(batch) == [FAILED]
    assert entry(batch, "a.mp4").reason == "the process ended at it (set aside after 3 attempts)"


def test_a_driver_that_was_killed_is_not_the_jobs_fault(jobs: list[BatchJob]) -> None:
    for _ in range(5):
        batch = opened(jobs[:1])
        assert batch.take("host/1", "n") is not None
        batch.save(now=True)
    assert states(opened(jobs[:1])) == [PENDING]


def test_stopped_what_was_begun_waits(jobs: list[BatchJob]) -> None:
    batch = opened(jobs)
    batch.take("w", "n")
    batch.release_running()
    batch.save(now=True)
    assert states(opened(jobs)) == [PENDING] * 3
    assert entry(opened(jobs), "a.mp4").crashes == 0


def test_a_machine_that_lacks_something_ends_no_batch(jobs: list[BatchJob]) -> None:
    batch = opened(jobs)
    batch.take("w", "bad")
    batch.on_result(jobs[0].name, "bad", JobResult(ResultStatus.NODE_UNSUITABLE, "No weights here."))
    assert batch.take("w", "bad") is None
    batch.fail_unschedulable(["bad", "good"])
    assert batch.waiting_count == 3
    assert batch.take("v", "good") is not None
    batch.on_result(jobs[0].name, "good", done(jobs[0]))
    batch.fail_unschedulable(["bad"])
    assert states(batch).count(FAILED) == 2
    assert batch.finished


def test_a_busy_job_waits_for_a_moment(jobs: list[BatchJob], monkeypatch: pytest.MonkeyPatch) -> None:
    from personalive.batch import job_tracker as module

    monkeypatch.setattr(module, "_LOCKED_RETRY_SECONDS", 0.0)
    batch = opened(jobs[:1])
    for _ in range(module._MAX_LOCKED_RETRIES + 1):
        assert batch.take("w", "n") is not None
        batch.on_result(jobs[0].name, "n", JobResult(ResultStatus.LOCKED, "Another run is at work."))
    assert states(batch) == [FAILED]
    assert entry(batch, "a.mp4").crashes == 0


def test_the_speed_is_that_of_frames_made(jobs: list[BatchJob], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    batch = opened(jobs)
    batch.take("w", "n")
    told: list[tuple[str, Any]] = [
        ("finding the place", 50),
        ("animating", 51),
        ("animating", 56),
        ("animating", 61),
    ]
    for stage, frames in told:
        clock[0] += 1.0
        batch.on_progress("w", JobProgress("a.mp4", stage, frames))
    assert batch.progress().frames_per_second == pytest.approx(10.0)


def test_what_may_end_its_worker_is_not_begun_beside_another(jobs: list[BatchJob]) -> None:
    batch = opened(jobs)
    assert batch.take("w", "n") is not None
    assert batch.take("w", "n", ahead=True) is not None
    batch.on_worker_lost("w", "killed.")
    assert [entry(batch, name).crashes for name in ("a.mp4", "b.mp4")] == [1, 1]
    first = batch.take("v", "n")
    assert first is not None
    assert batch.take("v", "n", ahead=True) is None, "one that was at work when a worker ended is alone"
    assert states(batch).count(RUNNING) == 1
    assert opened(jobs, max_attempts=1).take("w", "n") is not None
