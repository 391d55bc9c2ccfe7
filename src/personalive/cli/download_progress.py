"""Progress of a download: two bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from personalive.cli import console
from personalive.cli.progress import fixed_column, make_bars

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from personalive.pipelines.diffusion.checkpoints.download.progress import DownloadObserver, DownloadStep

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def show_download(*, quiet: bool) -> Iterator[DownloadObserver | None]:
    """Yield an observer that shows notes and steps during the block; the bars are removed afterwards."""
    if quiet or not sys.stderr.isatty():
        yield None if quiet else _LineProgress()
        return
    from rich.progress import DownloadColumn, TransferSpeedColumn

    sizes = (DownloadColumn(table_column=fixed_column()), TransferSpeedColumn(table_column=fixed_column()))
    with make_bars(*sizes) as bars:
        yield _BarProgress(bars)


class _BarProgress:
    """A bar for the current file, and one for all. Bytes of an earlier run do not count as speed."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._file_task: TaskID | None = None
        self._total_task: TaskID | None = None
        self._shown = ("", "")

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)

    def step(self, step: DownloadStep) -> None:
        if self._shown != (step.stage, step.name):
            self._shown = (step.stage, step.name)
            if self._file_task is not None:
                self._bars.remove_task(self._file_task)
            self._file_task = self._bars.add_task(
                f"{step.stage} {step.name}", total=step.size, completed=step.done
            )
        elif self._file_task is not None:
            self._bars.update(self._file_task, completed=step.done)
        if not step.all_size:
            return
        if self._total_task is None:
            self._total_task = self._bars.add_task("in all", total=step.all_size, completed=step.all_done)
        self._bars.update(self._total_task, completed=step.all_done)


class _LineProgress:
    """Prints a line for each file, and one now and then while a file takes long."""

    def __init__(self) -> None:
        self._shown = ("", "")
        self._last = time.monotonic()

    def note(self, text: str) -> None:
        console.print_status(text)

    def step(self, step: DownloadStep) -> None:
        now = time.monotonic()
        late = now - self._last >= _SECONDS_BETWEEN_LINES
        if late:
            console.print_status(_format_step(step))
        elif self._shown != (step.stage, step.name) and step.stage != "checking":
            console.print_status(f"{step.stage} {step.name}")
        else:
            return
        self._shown, self._last = (step.stage, step.name), now


def _format_step(step: DownloadStep) -> str:
    from rich.filesize import decimal

    line = f"{step.stage} {step.name}: {decimal(step.done)} of {decimal(step.size)}"
    return f"{line}; {decimal(step.all_done)} of {decimal(step.all_size)} in all" if step.all_size else line
