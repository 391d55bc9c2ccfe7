"""Ctrl-C at any moment: the job ends at once, and the folder is as it was."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from personalive.face.tracker import FaceDetector
from personalive.jobs import AnimateJob, plan, run
from personalive.jobs.layouts import ResultLayout
from personalive.jobs.output import OutputWriter
from personalive.media.container_writer import ContainerWriter
from personalive.pipelines import registry
from personalive.pipelines.base import FrameChunk, LoadParameters

pytestmark = pytest.mark.usefixtures("plugins")


@pytest.fixture(scope="module", autouse=True)
def everything_imported() -> None:
    """An import that is interrupted leaves half a module behind, on which the next test would stumble."""
    FaceDetector().close()


def echo_and_its_session() -> tuple[Any, Any]:
    echo: Any = registry.get_pipeline("echo")
    with echo.load(LoadParameters(width=256, height=256)) as pipeline:
        return echo, type(pipeline.open_session(pipeline.fuse(np.ones((256, 256, 3), np.uint8))))


def threads() -> list[str]:
    time.sleep(0.02)  # a thread that has done its work takes a moment to be gone
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("personalive-")]


@pytest.fixture
def job(portrait_file: Path, clip: Path, tmp_path: Path) -> AnimateJob:
    return AnimateJob(
        reference=portrait_file, driving=clip, output=tmp_path / "out.mp4", pipeline="echo", size=256
    )


@pytest.mark.parametrize(
    ("place", "call"),
    [
        *[("fuse", 1), ("open_session", 1), ("step", 1), ("step", 5), ("flush", 1)],
        *[("resample", 1), ("compose", 1), ("compose", 12), ("write", 1), ("write", 30), ("complete", 1)],
    ],
)
def test_at_every_stage(
    job: AnimateJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, call: int
) -> None:
    echo, session = echo_and_its_session()
    owner, name = {
        "fuse": (echo, "fuse"),
        "open_session": (echo, "open_session"),
        "step": (session, "step"),
        "flush": (session, "flush"),
        "resample": (plan, "resample"),
        "compose": (ResultLayout, "compose"),
        "write": (OutputWriter, "write"),
        "complete": (ContainerWriter, "_complete"),
    }[place]
    real = getattr(owner, name)
    calls = 0

    def trap(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, trap)
    with pytest.raises(KeyboardInterrupt):
        run(job)
    assert list(tmp_path.iterdir()) == []
    assert threads() == []


@contextmanager
def _interrupted_after(seconds: float) -> Iterator[list[float]]:
    """Raise KeyboardInterrupt in the main thread as a signal would, wherever it happens to be."""
    if sys.platform == "win32":
        pytest.skip("there is no signal of one's own on Windows")
    sent: list[float] = []

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def send() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(seconds, send)
    timer.start()
    try:
        yield sent
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("moment", [0.02 * k for k in range(1, 30)])
def test_at_any_moment(job: AnimateJob, tmp_path: Path, moment: float) -> None:
    finished = False
    try:
        with _interrupted_after(moment) as sent:
            run(job)
            finished = True
    except KeyboardInterrupt:
        assert time.monotonic() - sent[0] < 5
    left = [path.name for path in tmp_path.iterdir()]
    assert left == (["out.mp4"] if finished or left == ["out.mp4"] else [])
    assert threads() == []


def test_while_a_step_waits_for_its_pipeline(job: AnimateJob, tmp_path: Path) -> None:
    slow = AnimateJob(
        reference=job.reference, driving=job.driving, output=job.output, pipeline="echo",
        parameters={"pause": 0.3},
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt), _interrupted_after(1.0) as sent:
        run(slow)
    assert time.monotonic() - sent[0] < 5
    assert list(tmp_path.iterdir()) == []


def test_a_session_is_closed_whatever_happens(job: AnimateJob, monkeypatch: pytest.MonkeyPatch) -> None:
    _, session = echo_and_its_session()
    closed: list[bool] = []
    real = session.close

    def close(self: object) -> None:
        closed.append(True)
        real(self)

    monkeypatch.setattr(session, "close", close)

    def step(self: object, chunk: FrameChunk) -> None:
        raise OSError("the device is gone")

    monkeypatch.setattr(session, "step", step)
    with pytest.raises(OSError, match="device"):
        run(job)
    assert closed == [True]
