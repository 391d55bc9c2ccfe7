"""The phases of a job, so that several jobs can be in different phases at the same time.

A job is a generator that yields between two phases. Its caller may continue it on another thread; closing it
cleans up like an exception at that point.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Phase(StrEnum):
    """The next phase of a job. Any phase may be missing, but their order is fixed."""

    LOADING = "loading"
    """A cached pipeline is closed and another loaded: no other job may animate or hold a session."""
    ANIMATING = "animating"
    """The session is stepped. The files have been opened and checked; frames are being prepared."""
    FINISHING = "finishing"
    """The last frames are encoded and the output is completed; the pipeline is not used any more."""


Phases = Generator[Phase, None, T]
"""A job in phases, which returns its result."""


def run_all_phases(phases: Phases[T]) -> T:
    """Run all phases on this thread and return the job's result."""
    with closing(phases):
        while True:
            try:
                next(phases)
            except StopIteration as end:
                result: T = end.value
                return result
