"""The phases of a job, so that several jobs can be at different ones at the same time.

A job is a generator that yields at the border between two phases. Whoever runs it may go on with it on another
thread; closing it anywhere leaves as little behind as an exception there.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Phase(StrEnum):
    """What comes next in a job. Any of them may be missing, but for their order."""

    LOADING = "loading"
    """The pipeline loaded before is closed and another loaded: no other job may animate or hold a session."""
    ANIMATING = "animating"
    """The session is stepped. Until here the files were opened and checked; frames are being prepared."""
    FINISHING = "finishing"
    """The last frames are encoded and the output is completed: the pipeline has nothing to do any more."""


Phases = Generator[Phase, None, T]
"""A job, in phases, that returns what came of it."""


def run_all_phases(phases: Phases[T]) -> T:
    """Run through all phases on this thread."""
    with closing(phases):
        while True:
            try:
                next(phases)
            except StopIteration as end:
                result: T = end.value
                return result
