from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from personalive.live.targets.target import TargetError
from personalive.live.targets.window import WindowTarget
from tests.live.targets.events import Events, grey_frame

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
TK = pytest.mark.skipif(importlib.util.find_spec("tkinter") is None, reason="this Python has no Tk")


@LINUX
@TK
def test_no_display_is_an_error_that_says_what_else_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(TargetError, match=r"No window can be opened \(.*display.*another --to"):
        asyncio.run(WindowTarget(Events()).open())


def test_a_python_without_tk_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tkinter" else found(name, *rest)
    )
    with pytest.raises(TargetError, match="python3-tk"):
        asyncio.run(WindowTarget(Events()).open())


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A screen that nobody sees."""
    program = shutil.which("Xvfb")
    if program is None:
        if not os.environ.get("DISPLAY"):
            pytest.skip("there is no display, and no Xvfb to make one")
        yield
        return
    read, write = os.pipe()
    screen = [program, "-displayfd", str(write), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    with subprocess.Popen(screen, pass_fds=[write], stderr=subprocess.DEVNULL) as running:
        os.close(write)
        with os.fdopen(read) as said:
            monkeypatch.setenv("DISPLAY", f":{said.readline().strip()}")
        yield
        running.terminate()


@LINUX
@TK
def test_frames_are_shown_one_after_the_other(display: None) -> None:
    events = Events()

    async def act() -> None:
        target = WindowTarget(events)
        await target.open()
        for number in range(3):
            target.put(grey_frame(60 * number, size=(320, 200)))
            async with asyncio.timeout(30):
                while len(events.delivered) <= number:
                    await asyncio.sleep(0.01)
        await target.close()

    asyncio.run(act())
    assert [int(frame.image[0, 0, 0]) for frame in events.delivered] == [0, 60, 120]
    assert events.ended == []
