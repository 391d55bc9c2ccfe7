"""How far a download or a copy has come, counted in bytes: for the file at hand and for all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol


@dataclass(frozen=True, slots=True)
class DownloadStep:
    """Where the work stands. `stage` is "fetching", "checking" or "copying"; the rest counts bytes.

    Bytes that were there before this run count as done from the start.
    """

    stage: str
    name: str
    done: int
    size: int
    all_done: int
    all_size: int


class DownloadObserver(Protocol):
    """Who wants to know: the command line, say."""

    def note(self, text: str) -> None:
        """A sentence to show: what comes next, or why it waits."""

    def step(self, step: DownloadStep) -> None:
        """Called at every piece of some ten kilobytes and more."""


class ProgressTracker:
    """Counts bytes and tells `progress`, if there is one."""

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
        """Another file, or another stage of the same. `done` bytes of it count as done in all already."""
        self._step = replace(self._step, stage=stage, name=name, size=size, done=done)
        self._report()

    def advance(self, count: int, *, in_all: bool = True) -> None:
        """`count` more bytes, or fewer when negative; `in_all` whether the sum of all files moves too."""
        step = self._step
        moved = count if in_all else 0
        self._step = replace(step, done=step.done + count, all_done=step.all_done + moved)
        self._report()

    def _report(self) -> None:
        if self._progress is not None:
            self._progress.step(self._step)
