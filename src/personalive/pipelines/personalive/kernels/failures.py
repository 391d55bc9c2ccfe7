"""What the failure of a kernel means."""

from __future__ import annotations

import torch

_SPELLINGS = ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED")
"""As PyTorch, the driver and Triton say it, and as cuBLAS and cuDNN do."""


def out_of_memory(error: BaseException) -> bool:
    """Whether it is for want of memory, which says nothing about a kernel: with less in use, it would have run."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        spelling in str(error) for spelling in _SPELLINGS
    )


def first_line(error: BaseException) -> str:
    """What it says, for a line of a log."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
