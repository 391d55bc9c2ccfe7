from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.batch.manifest import MANIFEST_NAME, JobRecord, JobState, Manifest, parse, serialize
from personalive.errors import InputError

TEXT = st.text(max_size=20)
ENTRIES = st.lists(
    st.builds(
        JobRecord,
        name=st.text(min_size=1, max_size=20),
        state=st.sampled_from(JobState),
        reason=st.none() | TEXT,
        key=TEXT,
        attempts=st.integers(0, 9),
        worker=st.none() | TEXT,
        size=st.none() | st.integers(0, 2**60),
        seconds=st.floats(0, 1e9),
        notes=st.lists(TEXT, max_size=3).map(tuple),
    ),
    unique_by=lambda entry: entry.name,
    max_size=6,
)


@given(ENTRIES)
def test_any_manifest_comes_back(entries: list[JobRecord]) -> None:
    data = serialize(entries)
    assert data.count(b"\n") == len(entries) + 1
    assert parse(data, "here") == entries


@given(ENTRIES, st.integers(0), st.integers(1, 255))
def test_damage_is_refused_or_leaves_entries(entries: list[JobRecord], where: int, change: int) -> None:
    data = bytearray(serialize(entries))
    data[where % len(data)] ^= change
    try:
        found = parse(bytes(data), "/out/manifest.jsonl")
    except InputError as error:
        assert str(error).startswith("/out/manifest.jsonl is damaged")  # noqa: PT017
    else:
        assert len(found) <= len(entries) + 1


@pytest.mark.parametrize("data", [b"", b"{}", b"[]\n", b'{"format": 2, "made_by": "x"}\n', b"\xff"])
def test_other_files_are_refused(data: bytes) -> None:
    if data == b"{}":
        assert parse(data, "here") == []
        return
    with pytest.raises(InputError, match="remove it to start over"):
        parse(data, "here")


def test_it_is_kept_beside_the_results(tmp_path: Path) -> None:
    manifest = Manifest.read(str(tmp_path))
    assert not list(manifest)
    manifest.set(JobRecord(name="a.mp4", state=JobState.RUNNING))
    manifest.set(JobRecord(name="b.mp4"))
    manifest.set(JobRecord(name="a.mp4", state=JobState.DONE, size=3))
    manifest.save()
    again = Manifest.read(str(tmp_path))
    assert {entry.name: entry.state for entry in again} == {
        "a.mp4": JobState.DONE,
        "b.mp4": JobState.PENDING,
    }
    assert again.get("c.mp4") == JobRecord(name="c.mp4")
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME]


def test_it_is_not_written_all_the_time(tmp_path: Path) -> None:
    manifest = Manifest(str(tmp_path))
    manifest._write_seconds = 100.0
    manifest._written_at = float("inf")
    manifest.set(JobRecord(name="a.mp4"))
    manifest.save()
    assert not (tmp_path / MANIFEST_NAME).exists()
    manifest.save(now=True)
    before = (tmp_path / MANIFEST_NAME).stat().st_ino
    manifest.save(now=True)
    assert (tmp_path / MANIFEST_NAME).stat().st_ino == before, "nothing has changed"
