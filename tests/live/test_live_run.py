"""The whole run: a clip drives a session, whose frames come out of a virtual camera and into a file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from personalive.errors import InputError, PersonaLiveError
from personalive.live.live_display import LiveFigures
from personalive.live.live_job import LiveJob
from personalive.live.live_run import LiveRun
from personalive.media import open_driving, read_provenance
from tests.live.sound_devices import MemorySpeaker, make_soundcard
from tests.live.streams import write_flashes
from tests.live.targets.events import MemoryCamera
from tests.server.client import CLIP

pytestmark = pytest.mark.usefixtures("plugins")


@dataclass
class Display:
    figures: list[LiveFigures] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def show_figures(self, figures: LiveFigures) -> None:
        self.figures.append(figures)

    def show_notice(self, notice: str) -> None:
        self.notices.append(notice)


def job_of(portrait: Path, clip: Path, **changes: Any) -> LiveJob:
    """The pipeline shows driving frames as they are, so that what comes out can be told apart."""
    given: dict[str, Any] = {
        "portraits": (portrait,),
        "source": str(clip),
        "pipeline": "paced",
        "size": 256,
        "canvas": (320, 180),
    }
    return LiveJob(**(given | changes))


async def until(true: Callable[[], bool], within: float = 60.0) -> None:
    async with asyncio.timeout(within):
        while not true():
            await asyncio.sleep(0.02)


def test_a_clip_comes_out_of_the_camera_and_into_a_file(
    memory_camera: type[MemoryCamera], portrait_file: Path, clip: Path, tmp_path: Path
) -> None:
    second, path = tmp_path / "second.png", tmp_path / "out.mp4"
    second.write_bytes(portrait_file.read_bytes())
    job = job_of(
        portrait_file,
        clip,
        portraits=(portrait_file, second),
        targets=("camera", str(path)),
        background="#ff0000",
    )
    display = Display()

    async def act() -> None:
        run = LiveRun(job, display)
        running = asyncio.ensure_future(run.run())
        await until(
            lambda: running.done() or (len(memory_camera.frames) > 15 and run.figures().has_face is True)
        )
        assert not running.done()
        assert run.figures().delay is not None
        run.press_key("m")
        await until(lambda: run.figures().mirrored)
        run.press_key("n")
        await until(lambda: run.figures().portrait == "second.png")
        run.press_key("r")
        run.press_key("p")
        await until(lambda: run.figures().paused)
        await until(lambda: len(display.figures) > 2)
        count = len(memory_camera.frames)
        run.press_key("p")
        await until(lambda: len(memory_camera.frames) > count + 5)
        run.press_key("?")
        run.press_key("q")
        await asyncio.wait_for(running, 30)

    asyncio.run(act())
    assert memory_camera.closed == 1
    luma = np.array([frame.reshape(270, 320)[:180] for frame in memory_camera.frames])
    assert luma[:, :, :60].std() < 2  # the background is red all the time
    assert luma[5:, :, 100:220].std() > 10
    with open_driving(path) as source:
        frames = list(source)
    assert frames[0].image.shape == (180, 320, 3)
    assert len(frames) > 15
    mark = read_provenance(path)
    assert mark is not None
    assert (mark["pipeline"], mark["synthetic"]) == ("paced", "true")
    assert len(mark["reference_sha256"]) == len(mark["other_references_sha256"]) == 64
    assert any(str(path) in notice and "frames" in notice for notice in display.notices)


def test_a_session_that_breaks_down_is_opened_again_until_it_helps_no_more(
    memory_camera: type[MemoryCamera], portrait_file: Path, clip: Path
) -> None:
    job = job_of(portrait_file, clip, parameters={"fail_at": 3})
    display = Display()
    with pytest.raises(PersonaLiveError, match=r"error in the server|ended"):
        asyncio.run(asyncio.wait_for(_run(job, display), 90))
    assert len([notice for notice in display.notices if "ended" in notice]) == 2
    assert memory_camera.closed == 1


def test_the_run_ends_with_the_last_target(
    memory_camera: type[MemoryCamera], portrait_file: Path, clip: Path
) -> None:
    memory_camera.reset(limit=4)
    with pytest.raises(InputError, match="takes no more frames"):
        asyncio.run(asyncio.wait_for(_run(job_of(portrait_file, clip), Display()), 90))


def test_nothing_is_left_when_the_run_is_stopped_while_it_starts(
    portrait_file: Path, clip: Path, tmp_path: Path
) -> None:
    path = tmp_path / "out.mp4"
    job = job_of(portrait_file, clip, targets=(str(path),), parameters={"loading": 20.0})
    display = Display()

    async def act() -> None:
        run = LiveRun(job, display)
        running = asyncio.ensure_future(run.run())
        await until(lambda: any("loading" in notice for notice in display.notices))
        run.stop()
        await asyncio.wait_for(running, 30)

    asyncio.run(act())
    assert list(tmp_path.iterdir()) == []


def test_the_sound_of_a_clip_goes_into_the_file_and_to_the_speaker(
    memory_camera: type[MemoryCamera],
    portrait_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clip is looped once; sound stays through pause, reset and the next portrait, and is muted by a key."""
    clip, path, second = tmp_path / "flashes.mp4", tmp_path / "out.mp4", tmp_path / "second.png"
    write_flashes(clip, 4.0)
    second.write_bytes(portrait_file.read_bytes())
    cable = MemorySpeaker()
    monkeypatch.setitem(sys.modules, "soundcard", make_soundcard([], [MemorySpeaker("Loud"), cable]))
    job = job_of(
        portrait_file,
        clip,
        portraits=(portrait_file, second),
        targets=("camera", str(path)),
        background="#000000",
        sound=True,
        speaker="memory",
    )

    def loud(since: int) -> bool:
        return any(np.abs(block).max() > 0.2 for _, block in cable.heard[since:])

    async def act() -> None:
        run = LiveRun(job, Display())
        running = asyncio.ensure_future(run.run())
        await until(lambda: running.done() or (loud(0) and run.figures().has_sound))
        for key in "prpn":
            run.press_key(key)
        await until(lambda: run.figures().portrait == "second.png")
        count = len(cable.heard)
        await until(lambda: loud(count))
        run.press_key("s")
        await until(lambda: run.figures().muted)
        await asyncio.sleep(1.0)  # until what waits has been played
        count = len(cable.heard)
        await asyncio.sleep(2.5)  # more than from one click to the next
        assert not loud(count)
        run.press_key("s")
        count = len(cable.heard)
        await until(lambda: loud(count))
        run.press_key("q")
        await asyncio.wait_for(running, 30)

    asyncio.run(act())
    assert cable.closed == 1
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
        assert container.streams.video[0].frames > 60
    assert np.abs(sound).max() > 0.2
    assert len(sound) / 48_000 > 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": ("window",), "sound": True}, "sound would go nowhere"),
        ({"targets": ("camera",), "microphone": "default"}, "sound would go nowhere"),
        ({"targets": ("camera",), "speaker": "Cable"}, "--speaker plays the driver's sound"),
        ({"source": str(CLIP), "targets": ("out.mp4",), "sound": True}, "has no sound: leave --sound out"),
        ({"targets": ("out.mp4",), "microphone": "default"}, "no microphone that is seen"),
        ({"targets": ("out.mp4",), "sound": True, "speaker": "Black"}, "no speaker 'Black'"),
    ],
)
def test_sound_that_cannot_be_had_is_said_before_anything_is_written(
    portrait_file: Path,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "soundcard", make_soundcard([], [MemorySpeaker()]))
    with pytest.raises(InputError, match=message):
        asyncio.run(asyncio.wait_for(_run(job_of(portrait_file, clip, **changes), Display()), 60))
    assert list(tmp_path.iterdir()) == []


async def _run(job: LiveJob, display: Display) -> None:
    await LiveRun(job, display).run()
