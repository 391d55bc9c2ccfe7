"""Memory of the device and of the process, given back when something large has ended."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from typing import Any


def give_back_memory() -> None:
    """Return what is unused to the device. Cheap where PyTorch was never imported."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def settle() -> None:
    """Spare what lives now from garbage collection: looking through all of it would stop every thread for long.

    Call it when something large has come or gone; what went is found then.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def trim() -> None:
    """Return to the system what C libraries have freed: glibc keeps it, in as many pools as there were threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def gpu_memory_bytes() -> int:
    """How much GPU memory this process's tensors occupy, 0 without a GPU."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0
    return int(torch.cuda.memory_allocated())
