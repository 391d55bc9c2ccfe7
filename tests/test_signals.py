from __future__ import annotations

import signal
import subprocess
import sys
from types import FrameType

import pytest

from personalive.signals import ending_signals, stop_at_signal

TOLD_THRICE = """
import signal
from personalive.signals import stop_at_signal
signal.signal(signal.SIGTERM, lambda number, frame: print("as before", flush=True))
with stop_at_signal(lambda: print("stopping", flush=True)):
    for _ in range(3):
        signal.raise_signal(signal.SIGTERM)
print("not reached", flush=True)
"""


def test_the_first_signal_stops_and_the_second_acts_as_before() -> None:
    stopped: list[str] = []

    def handler(number: int, frame: FrameType | None) -> None:
        stopped.append("as before")

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with stop_at_signal(lambda: stopped.append("stop")) as received:
            assert not received.terminated
            signal.raise_signal(signal.SIGTERM)
            assert stopped == ["stop"]
            assert received.terminated
            signal.raise_signal(signal.SIGTERM)
            assert stopped == ["stop", "as before"]
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ctrl_c_does_not_count_as_terminated() -> None:
    with stop_at_signal(lambda: None) as received:
        signal.raise_signal(signal.SIGINT)
    assert not received.terminated


def test_the_third_ends_the_process_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOLD_THRICE], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split("\n") == ["stopping", "as before", ""]
    assert done.returncode not in {0, 1}


@pytest.mark.skipif(sys.platform != "win32", reason="Windows has it")
def test_ctrl_break_ends_too() -> None:
    assert "SIGBREAK" in {number.name for number in ending_signals()}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has none")
def test_a_hangup_ends_unless_it_is_ignored() -> None:
    if sys.platform == "win32":
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        assert signal.SIGHUP in ending_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert signal.SIGHUP not in ending_signals()
    finally:
        signal.signal(signal.SIGHUP, before)
