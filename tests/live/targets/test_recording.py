from __future__ import annotations

import asyncio
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from personalive.errors import InputError, OutputExistsError
from personalive.live.targets.recording import RecordingTarget
from personalive.media import FragmentedWriter, Provenance, open_driving, read_provenance
from personalive.server.recordings.recovery import fragments_path
from tests.live.targets.events import Events, grey_frame

MARK = Provenance(software="test", pipeline="none")


def test_a_file_has_all_frames_at_its_rate_and_the_mark(tmp_path: Path) -> None:
    path, events = tmp_path / "out.mp4", Events()

    async def act() -> str | None:
        target = RecordingTarget(events, path, MARK, fps=30, overwrite=False)
        await target.open()
        for number in range(31):
            target.put(grey_frame(8 * number, time=number / 15))
        assert not path.exists()
        return await target.close()

    said = asyncio.run(act())
    assert said == f"{path}: 61 frames, 2.0 s."
    with open_driving(path) as source:
        levels = [round(float(frame.image.mean())) for frame in source]
    assert len(levels) == 61
    assert levels[0] < 5
    assert levels[-1] > 230
    assert (read_provenance(path) or {})["synthetic"] == "true"
    assert len(events.delivered) == 31
    assert events.ended == []
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_where_no_frame_came(tmp_path: Path) -> None:
    async def act() -> str | None:
        target = RecordingTarget(Events(), tmp_path / "out.mp4", MARK, fps=30, overwrite=False)
        await target.open()
        return await target.close()

    assert "no frame came" in (asyncio.run(act()) or "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.mp4", "missing/out.mp4", "out.webm"])
def test_files_that_cannot_be_written_are_refused_before_they_are_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "out.mp4").write_bytes(b"kept")

    async def act(overwrite: bool) -> None:
        target = RecordingTarget(Events(), tmp_path / name, MARK, fps=30, overwrite=overwrite)
        with pytest.raises(OutputExistsError if name == "out.mp4" else InputError):
            await target.open()
        assert await target.close() is None

    asyncio.run(act(overwrite=False))
    assert (tmp_path / "out.mp4").read_bytes() == b"kept"


def test_a_file_that_exists_is_replaced_where_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")

    async def act() -> None:
        target = RecordingTarget(Events(), path, MARK, fps=30, overwrite=True)
        await target.open()
        target.put(grey_frame(100))
        target.put(replace(grey_frame(100), time=0.5))
        assert path.read_bytes() == b"old"
        await target.close()

    asyncio.run(act())
    with open_driving(path) as source:
        assert len(list(source)) == 16
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_run_left_is_completed_by_the_next(tmp_path: Path) -> None:
    path, events = tmp_path / "out.mp4", Events()
    writer = FragmentedWriter(fragments_path(path), size=(64, 48), rate=Fraction(30), provenance=MARK)
    for _ in range(90):
        writer.write(grey_frame(100).image)
    writer.close()

    async def act() -> None:
        target = RecordingTarget(events, path, MARK, fps=30, overwrite=False)
        with pytest.raises(OutputExistsError):
            await target.open()

    asyncio.run(act())
    assert "was left unfinished" in events.notices[0]
    with open_driving(path) as source:
        assert len(list(source)) == 90
    assert list(tmp_path.iterdir()) == [path]
