from __future__ import annotations

import io
import sys

import pytest

from personalive.cli import console, progress
from personalive.cli.progress import show_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work() -> None:
    with show_progress(quiet=False) as report:
        assert report is not None
        report("loading", 0, None)
        for done in range(1, 41):
            report("animating", done, 40)
        report("finishing", 40, 40)


def test_plain_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    work()
    assert capsys.readouterr().err.splitlines() == ["loading", "animating", "finishing"]


def test_a_long_stage_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    work()
    assert "animating: 17 of 40 frames" in capsys.readouterr().err


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    work()
    assert "40/40" in terminal.getvalue()


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(quiet=True) as report:
        assert report is None
    assert capsys.readouterr() == ("", "")


def test_an_error_is_one_line_and_red_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console.print_error("first\n  second")
    assert capsys.readouterr().err == "error: first second\n"
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    console.print_error("bad")
    assert terminal.getvalue() == "\x1b[31merror: bad\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    console.print_error("bad")
    assert terminal.getvalue().endswith("\nerror: bad\n")
