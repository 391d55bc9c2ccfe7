"""Progress of a job: a bar on a terminal, a few plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from personalive.cli import console
from personalive.cli.text_layout import terminal_width

if TYPE_CHECKING:
    from rich.progress import ProgressColumn
    from rich.table import Column

    from personalive.batch.job_tracker import BatchProgress
    from personalive.jobs import ProgressCallback

_SECONDS_BETWEEN_LINES = 10.0
_BAR_WIDTH = 20
_MIN_WIDTH_FOR_BAR = 70
"""Fewest terminal columns with room for a bar and the remaining time."""


def _shrinking_column() -> Column:
    """Return a column that is truncated on a narrow terminal, so that the others are not."""
    from rich.table import Column

    return Column(ratio=1, no_wrap=True, overflow="ellipsis")


def _fixed_column() -> Column:
    from rich.table import Column

    return Column(no_wrap=True)


def _fit_columns(all_columns: Sequence[ProgressColumn]) -> list[ProgressColumn]:
    """Return the columns that fit the terminal."""
    from rich.progress import BarColumn, TimeRemainingColumn

    if (terminal_width(sys.stderr) or _MIN_WIDTH_FOR_BAR) >= _MIN_WIDTH_FOR_BAR:
        return list(all_columns)
    return [each for each in all_columns if not isinstance(each, BarColumn | TimeRemainingColumn)]


@contextmanager
def show_progress(*, quiet: bool) -> Iterator[ProgressCallback | None]:
    """Yield a progress callback for the block; the bar is removed afterwards."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _open_frames_bar() as report:
            yield report
    else:
        yield _LineProgress()


@contextmanager
def show_bytes(*, quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """Yield a callback for work measured in bytes: it takes the stage, the bytes done, and the total."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as RichProgress

    shown = (
        TextColumn("{task.description}", table_column=_shrinking_column()),
        BarColumn(_BAR_WIDTH),
        DownloadColumn(table_column=_fixed_column()),
        TransferSpeedColumn(table_column=_fixed_column()),
    )
    with RichProgress(*_fit_columns(shown), console=Console(stderr=True), transient=True, expand=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


@contextmanager
def show_jobs(*, quiet: bool) -> Iterator[Callable[[BatchProgress], None] | None]:
    """Yield a callback for the progress of a batch."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with _open_jobs_bar() as report:
            yield report
    else:
        yield _BatchLineProgress()


@contextmanager
def _open_jobs_bar() -> Iterator[Callable[[BatchProgress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    shown = (
        TextColumn("{task.description}", table_column=_shrinking_column()),
        BarColumn(_BAR_WIDTH),
        MofNCompleteColumn(table_column=_fixed_column()),
        TextColumn("{task.fields[standing]}", table_column=_fixed_column()),
        TimeRemainingColumn(table_column=_fixed_column()),
    )
    with RichProgress(*_fit_columns(shown), console=Console(stderr=True), transient=True, expand=True) as bar:
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


class _BatchLineProgress:
    """Prints a line for each stage of a batch, and one now and then."""

    def __init__(self) -> None:
        self._stage: str | None = None
        self._last = 0.0

    def __call__(self, course: BatchProgress) -> None:
        now = time.monotonic()
        if course.stage == self._stage and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        if course.stage and course.stage != self._stage:
            console.print_status(course.stage)
        else:
            more = f", {standing}" if (standing := _format_progress(course)) else ""
            console.print_status(f"{course.done + course.failed} of {course.total} jobs{more}")
        self._stage, self._last = course.stage, now


@contextmanager
def _open_frames_bar() -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    shown = (
        TextColumn("{task.description}", table_column=_shrinking_column()),
        BarColumn(_BAR_WIDTH),
        MofNCompleteColumn(table_column=_fixed_column()),
        TextColumn("{task.fields[rate]}", table_column=_fixed_column()),
        TimeRemainingColumn(table_column=_fixed_column()),
    )
    with RichProgress(*_fit_columns(shown), console=Console(stderr=True), transient=True, expand=True) as bar:
        task = bar.add_task("starting", total=None, rate="")
        begun = 0.0

        def report(stage: str, done: int, total: int | None) -> None:
            nonlocal begun
            now = time.monotonic()
            begun = begun if done > 1 else now
            rate = f"{(done - 1) / (now - begun):.1f} fps" if done > 1 and now > begun + 0.5 else ""
            bar.update(task, description=stage, completed=done, total=total, rate=rate)

        yield report


class _LineProgress:
    """Prints a line for each stage, and one now and then within it."""

    def __init__(self) -> None:
        self._stage = ""
        self._last = 0.0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if stage == self._stage and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        count = f": {done} of {total} frames" if total else (f": {done} frames" if done else "")
        console.print_status(stage + (count if stage == self._stage else ""))
        self._stage, self._last = stage, now
