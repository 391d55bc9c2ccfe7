"""The terminal of `personalive live`: a status line and keys. All of it works without a terminal, too."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from typing_extensions import override

from personalive.cli import console
from personalive.cli.text_layout import terminal_width
from personalive.closing import Closing
from personalive.live.live_display import LiveFigures
from personalive.live.live_run import KEYS

_RARELY_S = 30.0
"""Seconds between two lines of figures where stderr is no terminal."""
_KEY_POLL_S = 0.05


def format_figures(figures: LiveFigures) -> str:
    """Return the figures as one line."""
    face = {None: "waiting", True: "face found", False: "no face"}[figures.has_face]
    parts = [
        f"{figures.fps:4.1f} fps",
        "delay –" if figures.delay is None else f"delay {1000 * figures.delay:.0f} ms",
        "paused" if figures.paused else face,
        *(["mirrored"] if figures.mirrored else []),
        *(["muted" if figures.muted else "sound"] if figures.has_sound else []),
        figures.portrait,
    ]
    line = " · ".join(parts)
    return line if figures.source_notice is None else f"{line} · {figures.source_notice}"


class StatusLine(Closing):
    """Shows figures on one line of a terminal, which is rewritten; elsewhere as a line now and then."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._drawn = False
        self._printed_at = -_RARELY_S
        self._told_keys = False

    def show_figures(self, figures: LiveFigures) -> None:
        """Show the figures."""
        if not self._told_keys:
            self._told_keys = True
            if sys.stdin is not None and sys.stdin.isatty():
                self.show_notice(f"running; keys: {KEYS}")
            else:
                self.show_notice("running; Ctrl-C ends it")
        line = format_figures(figures)
        if self._is_terminal:
            width = terminal_width(sys.stderr) or 80
            print(f"\r\x1b[K{line[: width - 1]}", end="", file=sys.stderr, flush=True)
            self._drawn = True
        elif figures.delay is not None and time.monotonic() - self._printed_at >= _RARELY_S:
            self._printed_at = time.monotonic()
            console.print_status(line)

    def show_notice(self, notice: str) -> None:
        """Print a sentence above the line of figures."""
        self.close()
        console.print_status(notice)

    @override
    def close(self) -> None:
        """Clear the line of figures."""
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = False


@contextlib.contextmanager
def read_keys(on_key: Callable[[str], None]) -> Iterator[None]:
    """Call `on_key` on the running event loop for each key that is pressed; do nothing without a terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield
    elif sys.platform == "win32":
        task = asyncio.get_running_loop().create_task(_poll_windows_keys(on_key))
        try:
            yield
        finally:
            task.cancel()
    else:
        with _read_posix_keys(on_key):
            yield


if sys.platform == "win32":
    import msvcrt

    async def _poll_windows_keys(on_key: Callable[[str], None]) -> None:
        while True:
            while msvcrt.kbhit():
                on_key(msvcrt.getwch())
            await asyncio.sleep(_KEY_POLL_S)

else:
    import os
    import termios
    import tty

    def _is_in_foreground(terminal: int) -> bool:
        """Return whether the terminal is ours: a job in the background is stopped when it changes its settings."""
        try:
            return os.tcgetpgrp(terminal) == os.getpgrp()
        except OSError:  # it controls another session
            return True

    @contextlib.contextmanager
    def _read_posix_keys(on_key: Callable[[str], None]) -> Iterator[None]:
        loop, terminal = asyncio.get_running_loop(), sys.stdin.fileno()
        if not _is_in_foreground(terminal):
            yield
            return
        before = termios.tcgetattr(terminal)

        def read() -> None:
            pressed = os.read(terminal, 64)
            if not pressed:  # the terminal is gone
                loop.remove_reader(terminal)
            for key in pressed.decode(errors="ignore"):
                on_key(key)

        try:
            tty.setcbreak(terminal)  # Ctrl-C still interrupts
            loop.add_reader(terminal, read)
            yield
        finally:
            loop.remove_reader(terminal)
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
