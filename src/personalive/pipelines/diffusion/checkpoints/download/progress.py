"""The progress of a download or a copy in bytes, for the current file and for all files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol


@dataclass(frozen=True, slots=True)
class DownloadStep:
    """The state of the work. `stage` is "fetching", "checking" or "copying"; `name` is a file; the rest are bytes.

    Bytes that an earlier run left count as done from the start.
    """

    stage: str
    name: str
    done: int
    size: int
    all_done: int
    all_size: int


class DownloadObserver(Protocol):
    """An observer of the progress, such as the command line."""

    def note(self, text: str) -> None:
        """Show a sentence on what comes next, or why the download waits."""

    def step(self, step: DownloadStep) -> None:
        """Show the progress; called for every piece of about ten kilobytes or more."""


class ProgressTracker:
    """A counter of bytes that reports to `progress`, if there is one."""

    def __init__(
        self, progress: DownloadObserver | None = None, *, all_size: int = 0, all_done: int = 0
    ) -> None:
        self._progress = progress
        self._step = DownloadStep("", "", 0, 0, all_done, all_size)

    def note(self, text: str) -> None:
        """Pass a sentence on."""
        if self._progress is not None:
            self._progress.note(text)

    def begin(self, stage: str, name: str, size: int, done: int = 0) -> None:
        """Begin another file, or another stage of it; the sum of all includes its first `done` bytes already."""
        self._step = replace(self._step, stage=stage, name=name, size=size, done=done)
        self._report()

    def advance(self, count: int, *, in_all: bool = True) -> None:
        """Count `count` more bytes, or fewer when negative; `in_all`: whether the sum of all files changes too."""
        step = self._step
        moved = count if in_all else 0
        self._step = replace(step, done=step.done + count, all_done=step.all_done + moved)
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress.step(self._step)
