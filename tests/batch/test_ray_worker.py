"""The actor's class as it is, without Ray: calls on threads of their own, as Ray makes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from personalive.batch.job_list import BatchJob
from personalive.batch.ray_worker import MAX_ASSIGNED_JOBS, RayWorker
from personalive.batch.worker import JobProgress, JobResult, ResultStatus
from personalive.errors import ClusterError
from tests.batch.conftest import TINY_FRAMES
from tests.batch.counted import Log

SEGMENTS = 3

Do = Callable[..., Future[JobResult]]


@pytest.fixture
def worker(counted: Log) -> Iterator[RayWorker]:
    made = RayWorker(10**9)
    yield made
    made.close()
    assert not [one.name for one in threading.enumerate() if one.name.startswith("personalive-")]


@pytest.fixture
def do(worker: RayWorker) -> Iterator[Do]:
    """Has the worker do a job on a separate thread."""
    with ThreadPoolExecutor(MAX_ASSIGNED_JOBS) as pool:
        yield lambda task, known=(): pool.submit(worker.run_job, task, known)


@pytest.fixture
def task(portraits: Path, clips: Path, tmp_path: Path) -> Callable[..., BatchJob]:
    def make(name: str, **parameters: Any) -> BatchJob:
        options = {"pipeline": "counted", "size": 256, "segment_frames": 8, "parameters": parameters}
        places = (f"{portraits}/ada.png", f"{clips}/nod.mp4", str(tmp_path / name))
        return BatchJob(name, *places, options=options)

    return make


def begun(worker: RayWorker, name: str) -> None:
    """Wait until a job animates."""
    moment = threading.Event()
    while name not in {standing.name for standing in worker.progress() if standing.frames}:
        moment.wait(0.01)


@pytest.mark.slow
def test_a_job_that_comes_while_another_animates_is_opened_then(
    worker: RayWorker, do: Do, task: Callable[..., BatchJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: set[str] = set()
    first = do(task("first.mp4", pause=0.5))
    begun(worker, "first.mp4")
    hear = worker._context.on_progress

    def heard(standing: JobProgress) -> None:
        if threading.current_thread() is not worker._thread and standing.stage == "checking the files":
            opened.add(standing.name)
        hear(standing)

    monkeypatch.setattr(worker._context, "on_progress", heard)
    second = do(task("second.mp4"))
    assert [first.result().status, second.result().status] == [ResultStatus.DONE] * 2
    assert opened == {"second.mp4"}
    assert not worker.progress()


@pytest.mark.slow
def test_what_is_kept_of_a_job_is_removed_once_the_worker_knows(
    worker: RayWorker, do: Do, counted: Log, task: Callable[..., BatchJob], tmp_path: Path
) -> None:
    def kept() -> set[str]:
        return {path.name for path in tmp_path.glob(".*.resume")}

    first, second = do(task("0.mp4")), do(task("1.mp4"))
    assert [first.result().segments, second.result().segments] == [SEGMENTS] * 2
    assert kept() == {".0.mp4.resume", ".1.mp4.resume"}
    assert do(task("2.mp4"), [task("0.mp4").output]).result().status is ResultStatus.DONE
    assert kept() == {".1.mp4.resume", ".2.mp4.resume"}
    assert (counted.count("load"), counted.count("fuse")) == (1, 1)
    assert counted.frames == 3 * TINY_FRAMES
    assert len({(tmp_path / f"{index}.mp4").read_bytes() for index in range(3)}) == 1


@pytest.mark.slow
def test_another_pipeline_is_loaded_when_no_job_needs_the_old_one(
    do: Do, counted: Log, task: Callable[..., BatchJob]
) -> None:
    middle = task("1.mp4")
    other = replace(middle, options={**middle.options, "size": 320})
    waiting = [do(one) for one in (task("0.mp4"), other, task("2.mp4"))]
    assert [one.result().status for one in waiting] == [ResultStatus.DONE] * 3
    assert counted.count("load") in (2, 3)


def test_a_worker_that_breaks_down_says_so_and_goes_on(
    worker: RayWorker, do: Do, counted: Log, task: Callable[..., BatchJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(standing: JobProgress) -> None:
        if standing.frames:
            raise SystemExit(standing.name)

    with monkeypatch.context() as patch:
        patch.setattr(worker._job_queue, "on_progress", broken)
        with pytest.raises(ClusterError, match="broke down: SystemExit"):
            do(task("0.mp4")).result()
    assert do(task("0.mp4")).result().status is ResultStatus.DONE
    assert counted.count("load") == 2
