from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from personalive.batch import storage
from personalive.batch.job_list import BatchJob, read_jobs
from personalive.batch.job_tracker import BatchProgress
from personalive.batch.manifest import JobState, Manifest
from personalive.batch.ray_executor import RayExecutorSettings
from personalive.batch.run import BatchResult, BatchSettings, run_batch
from personalive.errors import InputError, OutputLockedError
from personalive.jobs.checkpoint_dir import checkpoint_dir_path
from tests.batch.conftest import TINY_FRAMES
from tests.batch.counted import Log

DEFAULTS: dict[str, Any] = {"pipeline": "counted", "size": 256, "segment_frames": 8}


def pairs(portraits: Path, clips: Path, out: str, **options: Any) -> list[BatchJob]:
    return read_jobs([str(portraits), str(clips)], out, {**DEFAULTS, **options}, "every")


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.mp4")}


@pytest.fixture
def made(counted: Log, portraits: Path, clips: Path, tmp_path: Path) -> tuple[BatchResult, Path]:
    """Three portraits by two clips, in one run."""
    out = tmp_path / "made"
    return run_batch(pairs(portraits, clips, str(out)), BatchSettings(out=str(out))), out


def test_every_portrait_with_every_clip(made: tuple[BatchResult, Path], counted: Log) -> None:
    result, out = made
    assert (result.totals.done, result.totals.failed, result.previously_done) == (6, 0, 0)
    assert result.totals.frames == counted.frames == 6 * TINY_FRAMES
    assert (counted.count("load"), counted.count("fuse")) == (1, 3)
    names = {f"{one}_{other}.mp4" for one in ("ada", "bea", "cai") for other in ("nod", "turn")}
    assert contents(out).keys() == names
    assert {path.name for path in out.iterdir()} == {
        *names, ".batch.lock", ".thumbnails", "manifest.jsonl", "report.html", "report.json",
    }  # fmt: skip
    assert len(list((out / ".thumbnails").iterdir())) == 6
    assert "data:image/jpeg" in Path(result.report).read_text()


@pytest.mark.slow
def test_what_a_lost_worker_left_of_a_finished_job_is_removed(
    made: tuple[BatchResult, Path], portraits: Path, clips: Path
) -> None:
    _, out = made
    left = checkpoint_dir_path(out / "ada_nod.mp4")
    left.mkdir()
    (left / "state").write_text("{}")
    run_batch(pairs(portraits, clips, str(out)), BatchSettings(out=str(out)))
    assert not left.exists()
    assert (out / "ada_nod.mp4").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [1, 30, 77])
def test_stopped_it_goes_on_and_makes_the_same(
    made: tuple[BatchResult, Path], counted: Log, portraits: Path, clips: Path, tmp_path: Path, stop: int
) -> None:
    _, whole = made
    counted.path.write_text("")
    out = tmp_path / "again"
    jobs, settings = pairs(portraits, clips, str(out)), BatchSettings(out=str(out))
    heard: list[BatchProgress] = []

    def tell(course: BatchProgress) -> None:
        heard.append(course)
        if len(heard) == stop + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(jobs, settings, on_progress=tell)
    states = [entry.state for entry in Manifest.read(str(out))]
    assert JobState.RUNNING not in states
    result = run_batch(jobs, settings)
    assert result.totals.done == 6
    assert result.previously_done == states.count(JobState.DONE)
    assert contents(out) == contents(whole)
    assert counted.frames <= 6 * TINY_FRAMES + 8, "no more than a segment is made again"
    before = counted.frames
    assert run_batch(jobs, settings).previously_done == 6
    assert counted.frames == before
    assert not list(out.glob(".*.resume"))


@pytest.mark.slow
def test_a_poisoned_job_does_not_stop_the_others(
    counted: Log, portraits: Path, clips: Path, tmp_path: Path
) -> None:
    table = tmp_path / "jobs.jsonl"
    good = {"reference": str(portraits / "ada.png"), "driving": str(clips / "nod.mp4")}
    rows = [
        {**good, "output": "first.mp4"},
        {**good, "reference": str(clips / "nod.mp4"), "driving": str(table), "output": "broken.mp4"},
        {**good, "driving": "missing.mp4", "output": "missing.mp4"},
        {**good, "output": "last.mp4"},
    ]
    table.write_text("\n".join(map(json.dumps, rows)))
    out = str(tmp_path / "out")
    jobs = read_jobs([str(table)], out, DEFAULTS, "every")
    failures: dict[str, str] = {}
    result = run_batch(jobs, BatchSettings(out=out), on_failure=failures.__setitem__)
    assert (result.totals.done, result.totals.failed) == (2, 2)
    assert failures.keys() == {"broken.mp4", "missing.mp4"}
    assert contents(Path(out)).keys() == {"first.mp4", "last.mp4"}
    facts = json.loads((Path(out) / "report.json").read_text())
    assert [job["state"] for job in facts["jobs"]] == ["done", "failed", "failed", "done"]
    assert "missing.mp4" in facts["jobs"][2]["reason"]

    before = counted.frames
    assert run_batch(jobs, BatchSettings(out=out)).totals.failed == 2
    assert counted.frames == before
    (tmp_path / "missing.mp4").write_bytes((clips / "turn.mp4").read_bytes())
    mended = run_batch(jobs, BatchSettings(out=out))
    assert mended.totals.done == 3, "its input has changed"
    assert run_batch(jobs, BatchSettings(out=out, retry_failed=True)).totals.failed == 1


@pytest.mark.slow
def test_everything_in_a_store(counted: Log, portraits: Path, clips: Path, store: str) -> None:
    for path in [*portraits.iterdir(), *clips.iterdir()]:
        storage.upload(path, f"{store}/in/{path.name}")
    lines = ["reference,driving,output,expression", "ada.png,nod.mp4,,", "cai.png,turn.mp4,deep/cai.mp4,1.5"]
    storage.write_bytes(f"{store}/in/jobs.csv", "\n".join(lines).encode())
    out = f"{store}/out"
    jobs = read_jobs([f"{store}/in/jobs.csv"], out, DEFAULTS, "every")
    result = run_batch(jobs, BatchSettings(out=out))
    assert result.totals.done == 2
    assert result.report == f"{out}/report.html"
    assert storage.list_files(out) == ["ada_nod.mp4", "manifest.jsonl", "report.html", "report.json"]
    assert storage.list_files(f"{out}/deep") == ["cai.mp4"]
    assert run_batch(jobs, BatchSettings(out=out)).previously_done == 2
    assert counted.frames == 2 * TINY_FRAMES


def test_one_batch_at_a_time(counted: Log, portraits: Path, clips: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    jobs = pairs(portraits, clips, out)[:1]
    refused: list[str] = []

    def tell(course: BatchProgress) -> None:
        if not refused:
            with pytest.raises(OutputLockedError) as error:
                run_batch(jobs, BatchSettings(out=out))
            refused.append(str(error.value))

    assert run_batch(jobs, BatchSettings(out=out), on_progress=tell).totals.done == 1
    assert refused == [f"Another batch is running in {out}: wait for it to end."]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_attempts": 0}, "at least one attempt"),
        ({"ray": RayExecutorSettings(workers=0)}, "at least one worker"),
        ({"ray": RayExecutorSettings(gpus=1.5)}, "0 to 1 GPU"),
        ({"ray": RayExecutorSettings(cpus=0)}, "more than 0 CPUs"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run_batch([], BatchSettings(out=str(tmp_path), **settings))


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "personalive.jobs",
        "personalive.cli.app",
        "personalive.batch.run",
        "personalive.server.run",
    ],
)
def test_nothing_imports_ray_unless_it_is_needed(module: str) -> None:
    code = f"import sys, {module}; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_one_worker_here_needs_no_ray(
    counted: Log, portraits: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    out = str(tmp_path / "out")
    jobs = pairs(portraits, clips, out)[:1]
    assert run_batch(jobs, BatchSettings(out=out)).totals.done == 1
    with pytest.raises(InputError, match=r"needs Ray, which is not installed\. Run: .*pip install"):
        run_batch(pairs(portraits, clips, out), BatchSettings(out=out, ray=RayExecutorSettings(workers=2)))
