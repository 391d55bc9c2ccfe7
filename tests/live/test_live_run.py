"""The whole run: a clip drives a session, whose frames come out of a virtual camera and into a file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from personalive.errors import InputError, PersonaLiveError
from personalive.live.live_display import LiveFigures
from personalive.live.live_job import LiveJob
from personalive.live.live_run import LiveRun
from personalive.media import open_driving, read_provenance
from tests.live.targets.events import MemoryCamera

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


async def _run(job: LiveJob, display: Display) -> None:
    await LiveRun(job, display).run()
