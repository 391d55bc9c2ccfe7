from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from personalive.batch.job_list import BatchJob
from personalive.batch.job_tracker import JobTracker
from personalive.batch.local_executor import run_locally
from personalive.batch.manifest import JobState, Manifest
from personalive.batch.worker import ResultStatus

pytestmark = [
    pytest.mark.usefixtures("plugins"),
    # Of the others that the package registers, which are no use.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]


class Run:
    """Jobs of the echo pipeline, done here. `interrupt_at`: Ctrl-C at that call of `tell`."""

    def __init__(self, jobs: list[BatchJob], interrupt_at: int | None = None, **options: Any) -> None:
        self.running: list[int] = []
        self.endings: list[tuple[str, ResultStatus]] = []
        self._interrupt_at = interrupt_at
        out = str(Path(jobs[0].output).parent)
        self.batch = JobTracker(jobs, Manifest.read(out), **options)
        self.batch.load()
        try:
            run_locally(
                self.batch,
                cache_bytes=10**9,
                on_progress=self._tell,
                on_result=lambda task, outcome: self.endings.append((task.name, outcome.status)),
            )
        finally:
            self.batch.release_running()
            self.batch.save(now=True)

    def _tell(self, stage: str) -> None:
        del stage
        self.running.append(self.batch.progress().running)
        if len(self.running) == self._interrupt_at:
            raise KeyboardInterrupt

    @property
    def states(self) -> list[JobState]:
        return [entry.state for _, entry in self.batch.records]


def jobs(portraits: Path, clips: Path, out: Path, *parameters: dict[str, Any]) -> list[BatchJob]:
    """One for each set of parameters."""
    out.mkdir(exist_ok=True)
    return [
        BatchJob(
            name=f"{index}.mp4",
            reference=str(portraits / "ada.png"),
            driving=str(clips / "nod.mp4"),
            output=str(out / f"{index}.mp4"),
            options={"pipeline": "echo", "size": 256, "parameters": given},
        )
        for index, given in enumerate(parameters)
    ]


def test_jobs_are_done_in_order_and_the_next_is_open_meanwhile(
    portraits: Path, clips: Path, tmp_path: Path
) -> None:
    run = Run(jobs(portraits, clips, tmp_path / "out", *[{}] * 4))
    assert run.endings == [(f"{index}.mp4", ResultStatus.DONE) for index in range(4)]
    assert run.states == [JobState.DONE] * 4
    assert max(run.running) in (2, 3)
    made = {(tmp_path / f"out/{index}.mp4").read_bytes() for index in range(4)}
    assert len(made) == 1


def test_a_job_that_must_not_end_its_worker_even_once_is_done_alone(
    portraits: Path, clips: Path, tmp_path: Path
) -> None:
    run = Run(jobs(portraits, clips, tmp_path / "out", *[{}] * 3), max_attempts=1)
    assert run.states == [JobState.DONE] * 3
    assert max(run.running) == 1


def test_a_defect_takes_no_job_with_it_that_is_open_already(
    portraits: Path, clips: Path, tmp_path: Path
) -> None:
    run = Run(jobs(portraits, clips, tmp_path / "out", {}, {"fail_at": 9}, {}, {}), max_attempts=2)
    assert run.states == [JobState.DONE, JobState.FAILED, JobState.DONE, JobState.DONE]
    assert [name for name, ending in run.endings if ending is not ResultStatus.DONE] == ["1.mp4", "1.mp4"]
    assert (tmp_path / "out/3.mp4").read_bytes() == (tmp_path / "out/0.mp4").read_bytes()


@pytest.mark.parametrize("at", [3, 24, 25, 26, 30])
def test_ctrl_c_leaves_no_thread_and_nothing_that_is_not_done(
    portraits: Path, clips: Path, tmp_path: Path, at: int
) -> None:
    wanted = jobs(portraits, clips, tmp_path / "out", *[{}] * 3)
    with pytest.raises(KeyboardInterrupt):
        Run(wanted, interrupt_at=at)
    assert not [one.name for one in threading.enumerate() if one.name.startswith("personalive-")]
    done = {entry.name for entry in Manifest.read(str(tmp_path / "out")) if entry.state is JobState.DONE}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"manifest.jsonl", *done}
