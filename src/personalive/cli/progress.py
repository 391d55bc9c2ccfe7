"""Progress of a job: a bar on a terminal, a few plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from personalive.cli import console
from personalive.cli.text_layout import terminal_width

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn
    from rich.table import Column

    from personalive.batch.job_tracker import BatchProgress
    from personalive.jobs import ProgressCallback

_SECONDS_BETWEEN_LINES = 10.0
_MIN_WIDTH_FOR_BAR = 70
"""Fewest terminal columns with room for a bar and the remaining time."""


def fixed_column() -> Column:
    """Return a column that is not truncated on a narrow terminal."""
    from rich.table import Column

    return Column(no_wrap=True)


def make_bars(*figures: ProgressColumn | str, remaining: bool = True) -> RichProgress:
    """Return bars on stderr: description, bar, `figures`, and the time that is left if `remaining`.

    The description is truncated on a narrow terminal; on a very narrow one, bar and time are left out.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    shrinking = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = [TextColumn("{task.description}", markup=False, table_column=shrinking), *figures]
    if (terminal_width(sys.stderr) or _MIN_WIDTH_FOR_BAR) >= _MIN_WIDTH_FOR_BAR:
        columns.insert(1, BarColumn(20))
        if remaining:
            columns.append(TimeRemainingColumn(table_column=fixed_column()))
    return Progress(*columns, console=Console(stderr=True), transient=True, expand=True)


@contextmanager
def show_progress(*, quiet: bool) -> Iterator[ProgressCallback | None]:
    """Yield a progress callback for the block; the bar is removed afterwards."""
    if quiet or not sys.stderr.isatty():
        yield None if quiet else _LineProgress()
        return
    from rich.progress import MofNCompleteColumn

    with make_bars(MofNCompleteColumn(table_column=fixed_column()), "{task.fields[rate]}") as bar:
        task = bar.add_task("starting", total=None, rate="")
        begun = 0.0

        def report(stage: str, done: int, total: int | None) -> None:
            nonlocal begun
            now = time.monotonic()
            begun = begun if done > 1 else now
            rate = f"{(done - 1) / (now - begun):.1f} fps" if done > 1 and now > begun + 0.5 else ""
            bar.update(task, description=stage, completed=done, total=total, rate=rate)

        yield report


@contextmanager
def show_bytes(*, quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """Yield a callback for work measured in bytes: it takes the stage, the bytes done, and the total."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import DownloadColumn, TransferSpeedColumn

    sizes = (DownloadColumn(table_column=fixed_column()), TransferSpeedColumn(table_column=fixed_column()))
    with make_bars(*sizes, remaining=False) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


@contextmanager
def show_jobs(*, quiet: bool) -> Iterator[Callable[[BatchProgress], None] | None]:
    """Yield a callback for the progress of a batch."""
    if quiet or not sys.stderr.isatty():
        yield None if quiet else _BatchLineProgress()
        return
    from rich.progress import MofNCompleteColumn

    with make_bars(MofNCompleteColumn(table_column=fixed_column()), "{task.fields[standing]}") as bar:
        task = bar.add_task("starting", total=None, standing="")

        def report(course: BatchProgress) -> None:
            bar.update(
                task,
                description=course.stage or "jobs",
                completed=course.done + course.failed,
                total=course.total,
                standing=_format_progress(course),
            )

        yield report


def _format_progress(course: BatchProgress) -> str:
    """Format the part of a batch's progress that its bar does not show."""
    parts = [f"{course.failed} failed"] if course.failed else []
    if course.running > 1:
        parts.append(f"{course.running} running")
    if course.frames_per_second:
        parts.append(f"{course.frames_per_second:.1f} fps")
    return ", ".join(parts)


class _StageLines:
    """Prints a line for each stage, and one now and then within it."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._last = 0.0

    def _print(self, stage: str, course: str) -> None:
        """Print the stage where it is another one, else `course` where the last line was long ago."""
        now = time.monotonic()
        same = stage == self._stage
        if not same or now - self._last >= _SECONDS_BETWEEN_LINES:
            console.print_status(course if same or not stage else stage)
            self._stage, self._last = stage, now


class _BatchLineProgress(_StageLines):
    def __call__(self, course: BatchProgress) -> None:
        more = f", {standing}" if (standing := _format_progress(course)) else ""
        self._print(course.stage, f"{course.done + course.failed} of {course.total} jobs{more}")


class _LineProgress(_StageLines):
    def __call__(self, stage: str, done: int, total: int | None) -> None:
        count = f": {done} of {total} frames" if total else (f": {done} frames" if done else "")
        self._print(stage, stage + count)
