from __future__ import annotations

import asyncio
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalive.cli.live_terminal import StatusLine, format_figures, read_keys
from personalive.live.live_display import LiveFigures

FIGURES = LiveFigures(
    fps=29.94,
    delay=0.0312,
    has_face=True,
    paused=False,
    mirrored=False,
    portrait="me.jpg",
    source_notice=None,
)


@given(
    st.builds(
        LiveFigures,
        fps=st.floats(0, 240),
        delay=st.none() | st.floats(0, 100),
        has_face=st.none() | st.booleans(),
        paused=st.booleans(),
        mirrored=st.booleans(),
        portrait=st.just("me.jpg"),
        source_notice=st.none() | st.just("The camera was lost. Trying again."),
        has_sound=st.booleans(),
        muted=st.booleans(),
    )
)
def test_the_line_has_everything(figures: LiveFigures) -> None:
    line = format_figures(figures)
    assert f"{figures.fps:.1f} fps" in line
    assert ("paused" in line) == figures.paused
    assert ("mirrored" in line) == figures.mirrored
    assert ("no face" in line) == (figures.has_face is False and not figures.paused)
    assert ("was lost" in line) == (figures.source_notice is not None)
    assert ("sound" in line) == (figures.has_sound and not figures.muted)
    assert ("muted" in line) == (figures.has_sound and figures.muted)
    assert "\n" not in line


def test_an_example() -> None:
    assert format_figures(FIGURES) == "29.9 fps · delay 31 ms · face found · me.jpg"


def test_without_a_terminal_figures_are_lines_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    with StatusLine() as line:
        for _ in range(5):
            line.show_figures(FIGURES)
        line.show_notice("The source is back.")
    said = capsys.readouterr().err.splitlines()
    assert said == ["running; Ctrl-C ends it", format_figures(FIGURES), "The source is back."]


@pytest.mark.skipif(sys.platform == "win32", reason="a terminal of POSIX")
def test_keys_are_read_one_by_one_and_the_terminal_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        return
    import termios

    ours, theirs = os.openpty()
    before = termios.tcgetattr(theirs)

    async def act() -> list[str]:
        keys: list[str] = []
        with os.fdopen(theirs, closefd=False) as terminal:
            monkeypatch.setattr(sys, "stdin", terminal)
            with read_keys(keys.append):
                os.write(ours, b"pq")
                async with asyncio.timeout(10):
                    while len(keys) < 2:
                        await asyncio.sleep(0.01)
        return keys

    assert asyncio.run(act()) == ["p", "q"]
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)
