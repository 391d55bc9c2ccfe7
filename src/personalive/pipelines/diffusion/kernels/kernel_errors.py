"""What the failure of a kernel means."""

from __future__ import annotations

from personalive.out_of_memory import is_out_of_memory

_UNSUPPORTED = "FIND was unable to find an engine"
"""cuDNN's, where it has none for an operation at all; elsewhere it may be for want of a workspace."""


def is_memory_failure(error: BaseException) -> bool:
    """Whether it is for want of memory, which says nothing about a kernel: with less in use, it would have run."""
    return _UNSUPPORTED not in str(error) and is_out_of_memory(error)


def format_error(error: BaseException) -> str:
    """What it says, for a line of a log."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
