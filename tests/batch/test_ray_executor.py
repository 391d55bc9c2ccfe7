"""A batch on Ray clusters of several nodes, all on this machine, of which workers and nodes are killed."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from personalive.batch.job_list import BatchJob, read_jobs
from personalive.batch.job_tracker import BatchProgress
from personalive.batch.manifest import JobRecord, JobState, Manifest
from personalive.batch.ray_executor import RayExecutorSettings, may_prefetch_job
from personalive.batch.ray_worker import MAX_ASSIGNED_JOBS
from personalive.batch.run import BatchSettings, run_batch
from personalive.errors import ClusterError
from tests.batch.conftest import TINY_FRAMES
from tests.batch.counted import Log
from tests.signals import KILL

pytest.importorskip("ray")

SEGMENT = 8
DEFAULTS: dict[str, Any] = {"pipeline": "counted", "size": 256, "segment_frames": SEGMENT}

MakeCluster = Callable[[int], Any]


@pytest.fixture
def make_cluster(counted: Log, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeCluster]:
    """Starts a cluster of `count` nodes besides its head, each with two halves of a GPU that is none."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Whoever else uses up this machine's memory, only tests may kill workers.
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")
    from ray.cluster_utils import Cluster

    clusters = []

    def make(nodes: int) -> Any:
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, **_SMALL},
        )
        clusters.append(cluster)
        for _ in range(nodes):
            cluster.add_node(num_cpus=2, num_gpus=1, **_SMALL)
        return cluster

    yield make
    for cluster in clusters:
        cluster.shutdown()


_SMALL = {"object_store_memory": 80 * 2**20}


def crew(cluster: Any, **settings: Any) -> RayExecutorSettings:
    return RayExecutorSettings(address=cluster.address, **{"gpus": 0.5, **settings})


def running(out: Path) -> list[JobRecord]:
    """Jobs in workers' hands, by the manifest."""
    return [entry for entry in Manifest.read(str(out)) if entry.state is JobState.RUNNING]


class Trouble:
    """Kills a worker, and then a node, once enough jobs are done.

    Of the manifest it keeps how many workers were at work at a time at most, and how many jobs one had in hand.
    """

    def __init__(self, cluster: Any, out: Path, worker_at: int, node_at: int) -> None:
        self._cluster = cluster
        self._out = out
        self._worker_at, self._node_at = worker_at, node_at
        self.kills = 0
        self.most_at_work = 0
        self.most_in_hand = 0

    def __call__(self, course: BatchProgress) -> None:
        in_hand = Counter(entry.worker for entry in running(self._out))
        self.most_at_work = max(self.most_at_work, len(in_hand))
        self.most_in_hand = max(self.most_in_hand, *in_hand.values(), 0)
        if self.kills == 0 and course.done >= self._worker_at:
            if victims := [entry for entry in running(self._out) if entry.worker]:
                os.kill(int((victims[0].worker or "").rpartition("/")[2]), KILL)
                self.kills = 1
        elif self.kills == 1 and course.done >= self._node_at:
            # Two workers live there, and both are at something as long as there is enough to do.
            self._cluster.remove_node(next(iter(self._cluster.worker_nodes)), allow_graceful=False)
            self.kills = 3


def combinations(folder: Path, portraits: Path, clips: Path, count: int, **defaults: Any) -> list[BatchJob]:
    """Jobs of `count` different results: the six pairs, each with other strengths of the expression."""
    lines = ["reference,driving,output,expression"]
    pairs = [(one, other) for one in ("ada", "bea", "cai") for other in ("nod", "turn")]
    for index in range(count):
        one, other = pairs[index % len(pairs)]
        strength = 1 + 0.1 * (index // len(pairs))
        lines.append(f"{portraits}/{one}.png,{clips}/{other}.mp4,{index:03d}.mp4,{strength:.1f}")
    folder.mkdir(exist_ok=True)
    (folder / "jobs.csv").write_text("\n".join(lines))
    return read_jobs([str(folder / "jobs.csv")], str(folder), {**DEFAULTS, **defaults}, "every")


def repeated(jobs: list[BatchJob], out: Path, times: int) -> list[BatchJob]:
    """Every job several times, each time under another name."""
    return [
        BatchJob(
            name=f"{time}-{job.name}",
            reference=job.reference,
            driving=job.driving,
            output=str(out / f"{time}-{job.name}"),
            options=job.options,
        )
        for time in range(times)
        for job in jobs
    ]


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_jobs_with_a_worker_and_a_node_killed(
    make_cluster: MakeCluster, counted: Log, portraits: Path, clips: Path, tmp_path: Path
) -> None:
    frames, nodes, times = 12, 3, 10
    single = combinations(tmp_path / "single", portraits, clips, 20, max_frames=frames)
    run_batch(single, BatchSettings(out=str(tmp_path / "single")))
    expected = {job.name: Path(job.output).read_bytes() for job in single}
    assert len(set(expected.values())) == len(single)
    counted.path.write_text("")

    out = tmp_path / "out"
    out.mkdir()
    jobs = repeated(single, out, times)
    assert len(jobs) == 200
    cluster = make_cluster(nodes)
    trouble = Trouble(cluster, out, len(jobs) // 4, len(jobs) // 2)
    result = run_batch(jobs, BatchSettings(out=str(out), ray=crew(cluster)), on_progress=trouble)

    assert (result.totals.done, result.totals.failed) == (len(jobs), 0)
    assert trouble.kills == 3
    assert trouble.most_at_work == 2 * nodes
    for job in jobs:
        assert Path(job.output).read_bytes() == expected[job.name.partition("-")[2]], job.name
    assert trouble.most_in_hand == MAX_ASSIGNED_JOBS
    # Of each worker that was killed, of one job a segment that was animated, of another the last that was encoded.
    made_twice = counted.frames - len(jobs) * frames
    assert 0 <= made_twice <= trouble.kills * 2 * SEGMENT
    assert counted.count("load") <= 2 * nodes + trouble.kills
    attempts = sum(entry.attempts for entry in Manifest.read(str(out)))
    assert len(jobs) < attempts <= len(jobs) + trouble.kills * MAX_ASSIGNED_JOBS
    assert not list(out.glob(".*.resume"))


@pytest.mark.cluster
@pytest.mark.slow
def test_a_job_that_kills_its_workers_is_set_aside(
    make_cluster: MakeCluster, counted: Log, portraits: Path, clips: Path, tmp_path: Path
) -> None:
    jobs = combinations(tmp_path, portraits, clips, 3)
    poison = {**jobs[1].options, "parameters": {"die_after": 0.4}}
    jobs[1] = BatchJob(jobs[1].name, jobs[1].reference, jobs[1].driving, jobs[1].output, poison)
    failures: dict[str, str] = {}
    result = run_batch(
        jobs,
        BatchSettings(out=str(tmp_path), ray=crew(make_cluster(1)), max_attempts=2),
        on_failure=failures.__setitem__,
    )
    assert (result.totals.done, result.totals.failed) == (2, 1)
    assert failures.keys() == {jobs[1].name}
    assert "the worker died at it" in failures[jobs[1].name]
    entry = Manifest.read(str(tmp_path)).get(jobs[1].name)
    assert (entry.attempts, entry.segments) == (2, 1)


@pytest.mark.cluster
@pytest.mark.slow
def test_ctrl_c_ends_all_workers_and_the_same_call_goes_on(
    make_cluster: MakeCluster, counted: Log, portraits: Path, clips: Path, tmp_path: Path
) -> None:
    jobs = combinations(tmp_path, portraits, clips, 4)
    cluster = make_cluster(1)
    workers: list[int] = []

    def press(course: BatchProgress) -> None:
        at_work = {entry.worker or "" for entry in running(tmp_path)}
        if course.done >= 1 and len(at_work) == 2:
            workers[:] = [int(worker.rpartition("/")[2]) for worker in at_work]
            raise KeyboardInterrupt

    settings = BatchSettings(out=str(tmp_path), ray=crew(cluster))
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_batch(jobs, settings, on_progress=press)
    assert running(tmp_path) == []
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert time.monotonic() - begun < 240
    assert run_batch(jobs, settings).totals.done == 4
    assert counted.frames <= 4 * TINY_FRAMES + 2 * 2 * SEGMENT


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a worker with one CPU: the number of threads decides how PyTorch rounds."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_diffusion_pipeline_on_two_workers(
    make_cluster: MakeCluster, test_weights: Path, portraits: Path, clips: Path, tmp_path: Path
) -> None:
    parameters = {"weights": str(test_weights), "width": 64, "height": 64, "face_detection": False}
    defaults = {**DEFAULTS, "pipeline": "personalive", **parameters}
    given = [str(portraits / "ada.png"), str(clips)]
    for name in ("single", "ray"):
        jobs = read_jobs(given, str(tmp_path / name), defaults, "every")
        settings = RayExecutorSettings() if name == "single" else crew(make_cluster(1))
        result = run_batch(jobs, BatchSettings(out=str(tmp_path / name), ray=settings))
        assert result.totals.done == 2
    for name in ("ada_nod.mp4", "ada_turn.mp4"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "single" / name).read_bytes()


@pytest.mark.cluster
@pytest.mark.slow
def test_workers_of_this_machine_without_a_cluster(
    counted: Log, portraits: Path, clips: Path, tmp_path: Path
) -> None:
    jobs = combinations(tmp_path, portraits, clips, 4)
    result = run_batch(jobs, BatchSettings(out=str(tmp_path), ray=RayExecutorSettings(workers=2)))
    assert result.totals.done == 4
    assert counted.count("load") == 2


def test_no_cluster_is_said(counted: Log, portraits: Path, clips: Path, tmp_path: Path) -> None:
    jobs = combinations(tmp_path, portraits, clips, 1)
    for address in ("127.0.0.1:1", "auto"):
        settings = RayExecutorSettings(address=address)
        with pytest.raises(ClusterError, match=f"No Ray cluster can be reached at {address}: .*ray start"):
            run_batch(jobs, BatchSettings(out=str(tmp_path), ray=settings))
    assert [entry.state for entry in Manifest.read(str(tmp_path))] == [JobState.PENDING]


@pytest.mark.parametrize(
    ("in_hand", "all_in_hand", "waiting", "may"),
    [
        (1, [1], 1, True),
        (0, [0], 5, False),
        (2, [2], 5, False),
        (1, [1, 1], 1, False),
        (1, [1, 1], 2, True),
        (1, [1, 2], 1, True),
        (1, [1, 0, 0], 2, False),
        (1, [1, 0, 0], 3, True),
    ],
)
def test_a_job_ahead_is_none_that_another_worker_would_be_without(
    in_hand: int, all_in_hand: list[int], waiting: int, may: bool
) -> None:
    assert may_prefetch_job(in_hand, all_in_hand, waiting) is may
