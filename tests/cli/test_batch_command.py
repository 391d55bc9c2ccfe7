from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from personalive.batch.manifest import Manifest

if TYPE_CHECKING:
    from tests.cli.conftest import Call

SAMPLES = Path(str(files("personalive") / "samples"))


@pytest.fixture
def folders(portrait_file: Path, clip: Path, tmp_path: Path) -> Path:
    """A folder with portraits/ and clips/, one file each."""
    for name, file in (("portraits", portrait_file), ("clips", clip)):
        (tmp_path / name).mkdir()
        (tmp_path / name / file.name).symlink_to(file)
    return tmp_path


def test_two_folders(personalive: Call, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders)
    arguments = ["batch", "portraits", "clips/", "--out", "out", "--pipeline", "preview", "--size", 256]
    done = personalive(*arguments, "--set", "max_frames=9", "--segment-frames", 8)
    assert (done.code, done.err.splitlines()[0]) == (0, "checking the files")
    assert "made with preview (landmark warp), not the diffusion model" in done.err
    report = folders / "out" / "report.html"
    assert done.out.startswith("1 of 1 jobs done: 9 frames, ")
    assert done.out.rstrip().endswith(f"report: {report}")
    assert (folders / "out/portrait_clip.mp4").exists()
    assert Manifest.read(str(folders / "out")).get("portrait_clip.mp4").segments == 2
    again = personalive(*arguments, "--set", "max_frames=9", "--segment-frames", 8)
    assert "1 of 1 jobs done (1 by an earlier run)" in again.out


def test_failures_are_told_once_with_the_place_of_the_report(
    personalive: Call, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders)
    (folders / "jobs.csv").write_text("reference,driving\nportraits/none.png,clips/clip.mp4\n")
    done = personalive("batch", "jobs.csv", "--out", "out", "--pipeline", "preview", "-q")
    assert done.code == 2
    assert done.out == ""
    first, last = done.err.splitlines()
    assert first.startswith("failed: none_clip.mp4: ")
    assert last.startswith("error: 1 job failed; the reasons are in ")
    assert json.loads((folders / "out/report.json").read_text())["totals"]["failed"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["jobs.csv", "--out", "out"], "jobs.csv cannot be read: no such file"),
        (["portraits", "clips", "--out", "out", "--set", "sise=3"], "There is no option 'sise'"),
        (["portraits", "clips", "--out", "out", "--workers", "0"], "There must be at least one worker"),
        (["portraits", "clips"], "Missing option"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    personalive: Call, folders: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(folders)
    done = personalive("batch", *arguments)
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1


@pytest.mark.slow
def test_ctrl_c_says_that_the_same_command_goes_on(folders: Path) -> None:
    command = [sys.executable, "-c", "from personalive.cli.app import main; main()", "batch"]
    command += [str(SAMPLES / "portrait.jpg"), str(SAMPLES / "driving.mp4"), "--out", str(folders / "out")]
    command += ["--pipeline", "preview", "--segment-frames", "8", "--size", "256"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        work = folders / "out" / ".portrait_driving.mp4.resume"
        while not list(work.glob("segment-00001.*")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - begun < 5
    assert (
        said.splitlines()[-1]
        == "interrupted: run the same command again to continue after the last complete segments"
    )
    assert list(work.glob("segment-00000.*"))
