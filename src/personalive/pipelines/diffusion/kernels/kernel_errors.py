"""Classification of kernels' failures."""

from __future__ import annotations

from personalive.out_of_memory import is_out_of_memory

_UNSUPPORTED = "FIND was unable to find an engine"
"""cuDNN's message where it has no engine for an operation; its other errors may be for lack of memory."""


def is_memory_failure(error: BaseException) -> bool:
    """Return whether memory ran out, which says nothing about a kernel: with less in use it would have run."""
    return _UNSUPPORTED not in str(error) and is_out_of_memory(error)


def format_error(error: BaseException) -> str:
    """Return the error's type and first line, for a log line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
