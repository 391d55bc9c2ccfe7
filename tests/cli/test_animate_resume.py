from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from personalive.jobs import segments
from personalive.jobs.checkpoint_dir import CheckpointDir

if TYPE_CHECKING:
    from tests.cli.conftest import Call


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch, lasting: None) -> None:
    monkeypatch.setattr(segments, "DEFAULT_SEGMENT_FRAMES", 6)


def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(
    personalive: Call, portrait_file: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.mp4"
    arguments = ["animate", portrait_file, clip, "-o", output, "--pipeline", "lasting", "--size", 256]
    real = CheckpointDir.save

    def save(self: CheckpointDir, *given: Any) -> None:
        real(self, *given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointDir, "save", save)
        done = personalive(*arguments, "--resume")
    assert done.code == 130
    assert (
        done.err.splitlines()[-1]
        == "interrupted: run the same command again to continue after the last complete segment"
    )
    assert "nothing was written" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == [".out.mp4.resume"]

    refused = personalive(*arguments, "--resume", "--seed", 7)
    assert refused.code == 2
    assert "differs in seed" in refused.err

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointDir, "save", save)
        done = personalive(*arguments, "--resume", "--seed", 7, "-y")
    assert "discarding 9 finished frames" in done.err
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointDir, "save", save)
        assert personalive(*arguments, "--resume", "-y").code == 130

    done = personalive(*arguments, "--resume")
    assert done.code == 0
    assert "continuing after 9 frames" in done.err
    assert "note: 9 of the frames were made by an earlier run." in done.out
    assert ": 30 frames (" in done.out
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_what_cannot_be_resumed_is_refused_in_one_line(
    personalive: Call, portrait_file: Path, clip: Path, tmp_path: Path
) -> None:
    for arguments, words in (
        (["-o", tmp_path / "out.mp4", "--pipeline", "echo"], "The echo pipeline cannot resume a run"),
        (["-o", tmp_path / "out.gif"], "resuming needs a video"),
    ):
        done = personalive("animate", portrait_file, clip, "--size", 256, "--resume", "-q", *arguments)
        assert done.code == 2
        assert words in done.err
        assert done.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
