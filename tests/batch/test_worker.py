from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from personalive.batch import storage
from personalive.batch.job_list import BatchJob
from personalive.batch.worker import (
    JobProgress,
    JobResult,
    ResultStatus,
    WorkerContext,
    open_worker_context,
)
from personalive.jobs import AnimateJob, run
from personalive.jobs.checkpoint_dir import CheckpointDir
from personalive.jobs.phases import run_all_phases
from tests.batch.conftest import TINY_FRAMES
from tests.batch.counted import Log

OPTIONS: dict[str, Any] = {"pipeline": "counted", "size": 256, "segment_frames": 8, "parameters": {}}


@pytest.fixture
def bench(counted: Log) -> Iterator[WorkerContext]:
    with open_worker_context(10**9, lambda standing: None) as opened:
        yield opened


@pytest.fixture
def expected(counted: Log, portraits: Path, clips: Path, tmp_path: Path) -> bytes:
    """What one run makes of ada and nod, and all its frames."""
    output = tmp_path / "expected.mp4"
    run(
        AnimateJob(
            reference=portraits / "ada.png", driving=clips / "nod.mp4", output=output, resume=True, **OPTIONS
        )
    )
    counted.path.write_text("")
    return output.read_bytes()


def task(portraits: Path | str, clips: Path | str, to: Path | str, **changes: Any) -> BatchJob:
    output = str(changes.pop("output", to))
    name = storage.file_name(output)
    made = {
        "reference": f"{portraits}/ada.png",
        "driving": f"{clips}/nod.mp4",
        "output": output,
        "options": {**OPTIONS, **changes.pop("options", {})},
        **changes,
    }
    return BatchJob(name=name, **made)


def do(bench: WorkerContext, task: BatchJob) -> JobResult:
    """All phases of a job on this thread, as if it was known that the job before is done."""
    bench.remove_checkpoints()
    outcome = run_all_phases(bench.run_in_phases(task))
    bench.reset_pipeline()
    return outcome


def check_done(outcome: JobResult) -> None:
    assert outcome.reason is None
    assert outcome.status is ResultStatus.DONE
    assert outcome.report is not None
    assert outcome.report.frames == TINY_FRAMES
    assert outcome.thumbnail is not None
    assert outcome.thumbnail.startswith(b"\xff\xd8")


def test_to_a_path(
    bench: WorkerContext, expected: bytes, portraits: Path, clips: Path, tmp_path: Path
) -> None:
    heard: list[JobProgress] = []
    bench.on_progress = heard.append
    outcome = do(bench, task(portraits, clips, tmp_path / "new" / "out.mp4"))
    check_done(outcome)
    assert outcome.segments == 3
    assert (tmp_path / "new/out.mp4").read_bytes() == expected
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"out.mp4", ".out.mp4.resume"}
    bench.remove_checkpoints()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.mp4"]
    assert outcome.size == len(expected)
    assert max(standing.segments for standing in heard) == 3
    assert [standing.frames for standing in heard] == sorted(standing.frames for standing in heard)


@pytest.mark.slow
def test_a_result_that_nobody_heard_of_costs_nothing(
    bench: WorkerContext, counted: Log, expected: bytes, portraits: Path, clips: Path, tmp_path: Path
) -> None:
    check_done(do(bench, task(portraits, clips, tmp_path / "out.mp4")))
    with open_worker_context(10**9, lambda standing: None) as other:
        check_done(do(other, task(portraits, clips, tmp_path / "out.mp4")))
    assert counted.frames == TINY_FRAMES
    assert (tmp_path / "out.mp4").read_bytes() == expected


@pytest.mark.slow
def test_jobs_share_what_was_loaded_and_fused(
    bench: WorkerContext, counted: Log, portraits: Path, clips: Path, tmp_path: Path
) -> None:
    for index in range(2):
        check_done(do(bench, task(portraits, clips, tmp_path / f"{index}.mp4")))
    check_done(do(bench, task(portraits, clips, tmp_path / "bea.mp4", reference=str(portraits / "bea.png"))))
    assert (counted.count("load"), counted.count("fuse")) == (1, 2)


@pytest.fixture
def stored(store: str, portraits: Path, clips: Path) -> str:
    """A store that has the inputs."""
    storage.upload(portraits / "ada.png", f"{store}/ada.png")
    storage.upload(clips / "nod.mp4", f"{store}/nod.mp4")
    return store


@pytest.mark.slow
def test_to_a_store(bench: WorkerContext, expected: bytes, stored: str) -> None:
    check_done(do(bench, task(stored, stored, f"{stored}/out/new.mp4")))
    assert storage.read_bytes(f"{stored}/out/new.mp4") == expected
    assert storage.is_folder(f"{stored}/out/.new.mp4.resume"), "until it is known that it is done"
    bench.remove_checkpoints()
    assert storage.list_files(f"{stored}/out") == ["new.mp4"]
    assert not storage.is_folder(f"{stored}/out/.new.mp4.resume")
    assert {path.name for path in bench.workspace.path.iterdir()} == {"lock", "inputs"}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["uploading", "finishing", "animating"])
def test_another_worker_goes_on_from_what_is_in_the_store(
    bench: WorkerContext, counted: Log, expected: bytes, stored: str, stage: str
) -> None:
    def interrupt(standing: JobProgress) -> None:
        if standing.stage == stage and (standing.segments >= 2 or stage == "uploading"):
            raise KeyboardInterrupt

    bench.on_progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        do(bench, task(stored, stored, f"{stored}/out/new.mp4"))
    assert storage.read_version(f"{stored}/out/new.mp4") is None
    assert storage.is_folder(f"{stored}/out/.new.mp4.resume")
    before = counted.frames
    with open_worker_context(10**9, lambda standing: None) as other:
        check_done(do(other, task(stored, stored, f"{stored}/out/new.mp4")))
    assert storage.read_bytes(f"{stored}/out/new.mp4") == expected
    assert counted.frames == TINY_FRAMES if stage != "animating" else counted.frames <= TINY_FRAMES + 8
    assert before >= 16
    assert storage.list_files(f"{stored}/out") == ["new.mp4"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.gif", "echo.mp4"])
def test_what_has_no_segments_is_made_in_one_go(
    bench: WorkerContext, portraits: Path, clips: Path, tmp_path: Path, plugins: None, name: str
) -> None:
    options = {"pipeline": "echo"} if name == "echo.mp4" else {}
    for _ in range(2):
        outcome = do(bench, task(portraits, clips, tmp_path / name, options=options))
        check_done(outcome)
        assert outcome.segments == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_picture_of_a_still(bench: WorkerContext, portraits: Path, tmp_path: Path) -> None:
    outcome = do(bench, task(portraits, "/", tmp_path / "out.png", driving=str(portraits / "cai.png")))
    assert outcome.status is ResultStatus.DONE
    assert outcome.thumbnail is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "ending", "words"),
    [
        ({"driving": "/no/such.mp4"}, ResultStatus.INVALID_INPUT, "such.mp4"),
        ({"options": {"parameters": {"pose": 7}}}, ResultStatus.INVALID_INPUT, "pose = 7"),
        ({"options": {"pipeline": "missing"}}, ResultStatus.NODE_UNSUITABLE, "its weights are missing"),
        (
            {"options": {"pipeline": "echo", "parameters": {"fail_at": 9}}},
            ResultStatus.ERROR,
            "RuntimeError: broke",
        ),
        ({"output": "nosuch://a/out.mp4"}, ResultStatus.INVALID_INPUT, "not a URL that fsspec supports"),
    ],
)
def test_what_goes_wrong_is_sorted(
    bench: WorkerContext,
    portraits: Path,
    clips: Path,
    tmp_path: Path,
    plugins: None,
    changes: dict[str, Any],
    ending: ResultStatus,
    words: str,
) -> None:
    outcome = do(bench, task(portraits, clips, tmp_path / "out.mp4", **changes))
    assert outcome.status is ending
    assert outcome.reason is not None
    assert words in outcome.reason
    assert not list(tmp_path.iterdir())
    check_done(do(bench, task(portraits, clips, tmp_path / "out.mp4")))


def test_a_job_that_somebody_else_is_at(
    bench: WorkerContext, portraits: Path, clips: Path, tmp_path: Path
) -> None:
    with CheckpointDir(tmp_path / "out.mp4", {}, overwrite=True):
        outcome = do(bench, task(portraits, clips, tmp_path / "out.mp4"))
    assert outcome.status is ResultStatus.LOCKED


@pytest.mark.slow
def test_the_diffusion_pipeline(
    bench: WorkerContext, portraits: Path, clips: Path, tmp_path: Path, test_weights: Path, stored: str
) -> None:
    parameters = {"weights": str(test_weights), "width": 64, "height": 64, "face_detection": False}
    options: dict[str, Any] = {
        "pipeline": "personalive",
        "size": 256,
        "parameters": parameters,
        "segment_frames": 8,
    }
    plain = AnimateJob(
        reference=portraits / "ada.png",
        driving=clips / "nod.mp4",
        output=tmp_path / "plain.mp4",
        resume=True,
        **options,
    )
    run(plain)
    check_done(do(bench, task(portraits, clips, tmp_path / "out.mp4", options=options)))
    check_done(do(bench, task(stored, stored, f"{stored}/out.mp4", options=options)))
    assert (tmp_path / "out.mp4").read_bytes() == plain.output.read_bytes()
    assert storage.read_bytes(f"{stored}/out.mp4") == plain.output.read_bytes()
