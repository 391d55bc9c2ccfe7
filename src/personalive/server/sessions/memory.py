"""Release memory of the device and of the process when something large has ended."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from typing import Any

_MMAP_THRESHOLD = -3
"""glibc's number of the setting M_MMAP_THRESHOLD, from malloc.h."""
_LARGE_BLOCK = 8 * 2**20


def release_memory() -> None:
    """Return unused memory to the device. This is cheap where PyTorch was never imported."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def freeze_gc() -> None:
    """Exempt all live objects from garbage collection, since scanning them would stop every thread for long.

    Call it when something large was loaded or released; garbage is collected first.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def malloc_trim() -> None:
    """Return to the system what C libraries have freed; glibc keeps it in a pool for each thread."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def set_mmap_threshold() -> None:
    """Have the C library return blocks of `_LARGE_BLOCK` and more to the system as soon as they are freed.

    By default glibc raises this threshold whenever a large block is freed, so that the memory of a few simultaneous
    uploads would be kept for ever. Frames of a video are smaller, as mapping new memory for each would be slow.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK)


def gpu_memory_bytes() -> int:
    """Return the bytes of GPU memory that this process's tensors occupy; 0 without a GPU."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0
    return int(torch.cuda.memory_allocated())
