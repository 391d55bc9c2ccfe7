from __future__ import annotations

import os
from pathlib import Path

import pytest

from personalive.errors import InputError, OutputLockedError
from personalive.jobs.checkpoint_dir import CheckpointDir, CheckpointState
from personalive.pipelines.base import FrameState

FACTS: dict[str, object] = {"seed": 1, "fps": 25.0, "names": ["a", "b"]}


def folder(
    tmp_path: Path, facts: dict[str, object] | None = None, *, overwrite: bool = False
) -> CheckpointDir:
    return CheckpointDir(tmp_path / "out.mp4", facts or FACTS, overwrite=overwrite)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A work folder with two segments."""
    with folder(tmp_path) as work:
        for frames in (8, 5):
            work.next_segment.write_bytes(b"x" * frames)
            segments = work.add_segment(frames)
            work.save(CheckpointState(segments=segments, states={FrameState.HELD: 2}, taken=12), b"a\nb\0")
    return work.path


def test_what_was_kept_is_found_again(tmp_path: Path, kept: Path) -> None:
    assert kept.name == ".out.mp4.resume"
    with folder(tmp_path) as work:
        assert (work.state.frames, work.state.taken, work.snapshot) == (13, 12, b"a\nb\0")
        assert work.state.states == {FrameState.HELD: 2}
        assert [path.read_bytes() for path in work.segments] == [b"x" * 8, b"x" * 5]
        work.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_is_swept_away_and_nothing_else(tmp_path: Path, kept: Path) -> None:
    for name in ("segment-00002.mp4", ".segment-00003.partial-77-0.mp4", ".state.partial-77-5", "notes.txt"):
        (kept / name).write_bytes(b"half")
    with folder(tmp_path) as work:
        names = {path.name for path in kept.iterdir()}
        assert names == {
            "lock", "manifest.json", "state", "segment-00000.mp4", "segment-00001.mp4", "notes.txt",
        }  # fmt: skip
        work.remove()
    assert [path.name for path in kept.iterdir()] == ["notes.txt"]


def test_an_unfinished_beginning_is_no_obstacle(tmp_path: Path, kept: Path) -> None:
    (kept / "state").unlink()
    with folder(tmp_path, {"seed": 2}) as work:
        assert work.state == CheckpointState()
        assert not work.next_segment.exists()
    assert list(tmp_path.iterdir()) == []


def test_another_job_is_refused_or_takes_its_place(tmp_path: Path, kept: Path) -> None:
    other: dict[str, object] = {**FACTS, "seed": 2, "size": 512}
    with pytest.raises(InputError, match=r"differs in seed, size: give the same"), folder(tmp_path, other):
        pass
    assert len(list(kept.glob("segment-*"))) == 2
    with folder(tmp_path, other, overwrite=True) as work:
        assert work.state == CheckpointState()
        assert work.discarded_frames == 13
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "data"),
    [("state", b"{"), ("state", b""), ("manifest.json", b"{"), ("segment-00001.mp4", b"short")],
)
def test_a_damaged_folder_is_refused(tmp_path: Path, kept: Path, name: str, data: bytes) -> None:
    (kept / name).write_bytes(data[:4])
    with pytest.raises(InputError, match=r"out\.mp4\.resume is damaged: remove"), folder(tmp_path):
        pass


def test_one_run_at_a_time(tmp_path: Path, kept: Path) -> None:
    with folder(tmp_path), pytest.raises(OutputLockedError, match="Another run is using"), folder(tmp_path):
        pass
    with folder(tmp_path) as work:
        assert work.state.frames == 13


def test_it_lies_beside_what_a_link_stands_for(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "out.mp4").symlink_to(tmp_path / "deep" / "real.mp4")
    assert folder(tmp_path).path == tmp_path / "deep" / ".real.mp4.resume"
    long = CheckpointDir(tmp_path / ("ö" * 120 + ".mp4"), FACTS, overwrite=False)
    assert len(os.fsencode(long.path.name)) < 255
