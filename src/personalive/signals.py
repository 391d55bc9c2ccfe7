"""Signals that end a command which runs until it is told to stop."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class ReceivedSignals:
    """Whether a signal other than Ctrl-C's has come."""

    terminated: bool = False


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that end a command here: also Ctrl-Break, and SIGHUP unless `nohup` had it ignored."""
    ends = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":  # another program can send it to a process in a separate group
        ends.append(signal.SIGBREAK)
    elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        ends.append(signal.SIGHUP)
    return tuple(ends)


@contextlib.contextmanager
def stop_at_signal(stop: Callable[[], None]) -> Iterator[ReceivedSignals]:
    """Call `stop` at the first of `ending_signals`.

    The second acts as before the block, so that context managers are left and a terminal is restored; the third
    ends the process at once. `stop` is called in the handler, on the main thread: it may do no more than tell
    another thread or an event loop.
    """
    received = ReceivedSignals()
    before = {number: signal.getsignal(number) for number in ending_signals()}
    count = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        received.terminated = received.terminated or number != signal.SIGINT
        if count == 1:
            stop()
            return
        for other in before:
            signal.signal(other, signal.SIG_DFL)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        elif handler is not signal.SIG_IGN:
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
