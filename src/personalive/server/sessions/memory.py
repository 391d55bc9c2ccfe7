"""Memory of the device and of the process, given back when something large has ended."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from typing import Any

_MMAP_THRESHOLD = -3
"""glibc's name of the setting, from malloc.h."""
_LARGE_BLOCK = 8 * 2**20


def release_memory() -> None:
    """Return what is unused to the device. Cheap where PyTorch was never imported."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def freeze_gc() -> None:
    """Spare what lives now from garbage collection: looking through all of it would stop every thread for long.

    Call it when something large has come or gone; what went is found then.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def malloc_trim() -> None:
    """Return to the system what C libraries have freed: glibc keeps it, in as many pools as there were threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def set_mmap_threshold() -> None:
    """Have the C library return blocks of `_LARGE_BLOCK` and more to the system as soon as they are freed.

    glibc does so at first, and keeps larger ones after each large block that was freed, so that a few uploads at
    the same time stay for ever. Frames of a video are smaller: to get those anew each time would cost.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)


def gpu_memory_bytes() -> int:
    """How much GPU memory this process's tensors occupy, 0 without a GPU."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0
    return int(torch.cuda.memory_allocated())
