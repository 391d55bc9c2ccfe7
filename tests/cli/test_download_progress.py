from __future__ import annotations

import io
import sys

import pytest

from personalive.cli import download_progress
from personalive.cli.download_progress import show_download
from personalive.pipelines.diffusion.checkpoints.download.progress import ProgressTracker


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work() -> None:
    """Two files of 2 MB, half of the first there already."""
    with show_download(quiet=False) as progress:
        assert progress is not None
        ProgressTracker(progress).begin("checking", "old", 5_000_000)
        tally = ProgressTracker(progress, all_size=4_000_000, all_done=1_000_000)
        tally.note("fetching [2] files")
        for name, there in (("a", 1_000_000), ("b", 0)):
            tally.begin("fetching", name, 2_000_000, there)
            for _ in range(there, 2_000_000, 100_000):
                tally.advance(100_000)
            tally.begin("checking", name, 2_000_000)
            tally.advance(2_000_000, in_all=False)


def test_plain_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    work()
    assert capsys.readouterr().err.splitlines() == ["fetching [2] files", "fetching a", "fetching b"]


def test_a_long_one_says_how_far_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_progress, "_SECONDS_BETWEEN_LINES", 0.0)
    work()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "checking old: 0 bytes of 5.0 MB"
    assert "fetching a: 1.1 MB of 2.0 MB; 1.1 MB of 4.0 MB in all" in lines
    assert lines[-1] == "checking b: 2.0 MB of 2.0 MB; 4.0 MB of 4.0 MB in all"


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    work()
    shown = terminal.getvalue()
    assert "fetching [2] files" in shown
    assert "checking b" in shown
    assert "4.0/4.0 MB" in shown


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with show_download(quiet=True) as progress:
        assert progress is None
    assert capsys.readouterr() == ("", "")
