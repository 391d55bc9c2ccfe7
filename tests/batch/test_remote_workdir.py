from __future__ import annotations

from pathlib import Path

import pytest

from personalive.batch import storage
from personalive.batch.remote_workdir import RemoteWorkdir, count_finished_segments, remove_checkpoint
from personalive.jobs.checkpoint_dir import CheckpointDir, CheckpointState

FACTS: dict[str, object] = {"seed": 1}


def add(work: CheckpointDir, data: bytes) -> None:
    work.next_segment.write_bytes(data)
    work.save(CheckpointState(segments=work.add_segment(8), taken=9), b"snapshot")


@pytest.fixture
def kept(tmp_path: Path, store: str) -> str:
    """A store with two segments of a job, pushed one by one."""
    target = f"{store}/results/out.mp4"
    (tmp_path / "one").mkdir()
    output = tmp_path / "one" / "out.mp4"
    mirror = RemoteWorkdir(output, target)
    with CheckpointDir(output, FACTS, overwrite=True) as work:
        mirror.upload(work)
        for data in (b"first", b"second"):
            add(work, data)
            mirror.upload(work)
    return target


def there(target: str) -> list[str]:
    return storage.list_files(f"{storage.parent_uri(target)}/.out.mp4.resume")


def test_another_worker_goes_on_from_the_store(tmp_path: Path, kept: str) -> None:
    assert there(kept) == ["manifest.json", "segment-00000.mp4", "segment-00001.mp4", "state"]
    (tmp_path / "two").mkdir()
    output = tmp_path / "two" / "out.mp4"
    mirror = RemoteWorkdir(output, kept)
    mirror.download()
    with CheckpointDir(output, FACTS, overwrite=True) as work:
        assert (len(work.state.segments), work.snapshot) == (2, b"snapshot")
        assert [path.read_bytes() for path in work.segments] == [b"first", b"second"]
        mirror.upload(work)
        add(work, b"third")
        mirror.upload(work)
    assert "segment-00002.mp4" in there(kept)
    remove_checkpoint(kept)
    assert not storage.is_folder(f"{storage.parent_uri(kept)}/.out.mp4.resume")


def test_how_far_a_job_has_come_is_seen_beside_its_output(tmp_path: Path, kept: str) -> None:
    assert count_finished_segments(kept) == 2
    assert count_finished_segments(str(tmp_path / "one" / "out.mp4")) == 2
    (tmp_path / "one" / ".out.mp4.resume" / "state").write_bytes(b"half")
    for place in (str(tmp_path / "one" / "out.mp4"), str(tmp_path / "none.mp4"), f"{kept}.mp4"):
        assert count_finished_segments(place) == 0


def test_what_does_not_fit_together_is_not_used(tmp_path: Path, kept: str) -> None:
    storage.write_bytes(f"{storage.parent_uri(kept)}/.out.mp4.resume/segment-00001.mp4", b"half")
    output = tmp_path / "out.mp4"
    mirror = RemoteWorkdir(output, kept)
    mirror.download()
    assert list(tmp_path.glob(".out*")) == []


def test_the_work_of_another_job_is_replaced(tmp_path: Path, kept: str) -> None:
    output = tmp_path / "out.mp4"
    mirror = RemoteWorkdir(output, kept)
    mirror.download()
    with CheckpointDir(output, {"seed": 2}, overwrite=True) as work:
        assert work.state == CheckpointState()
        mirror.upload(work)
        add(work, b"again")
        mirror.upload(work)
    other = tmp_path / "other"
    other.mkdir()
    RemoteWorkdir(other / "out.mp4", kept).download()
    with CheckpointDir(other / "out.mp4", {"seed": 2}, overwrite=False) as work:
        assert [path.read_bytes() for path in work.segments] == [b"again"]


def test_nothing_there_is_no_error(tmp_path: Path, store: str) -> None:
    RemoteWorkdir(tmp_path / "out.mp4", f"{store}/out.mp4").download()
    assert list(tmp_path.iterdir()) == []
