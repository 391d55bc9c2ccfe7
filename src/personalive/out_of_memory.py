"""Recognizes out-of-memory errors, in all spellings of the libraries that allocate memory."""

from __future__ import annotations

import re
from collections.abc import Iterator

_EXCEPTION_NAME = "OutOfMemoryError"
"""PyTorch's exception type; that of another process has the same name (`server/process/remote_errors.py`)."""
_OOM_PATTERNS = re.compile(
    r"""
      \bout\ of\ memory\b             # CUDA, HIP, the driver, MPS, PyTorch
    | \bout_of_memory\b               # CUDA_ERROR_OUT_OF_MEMORY
    | \bnot\ enough\ memory\b         # DefaultCPUAllocator on Windows
    | \bcan(?:'t|not)\ allocate\ memory\b      # DefaultCPUAllocator, ENOMEM
    | \bcudaErrorMemoryAllocation\b | \bcudaErrorMemoryValueTooLarge\b
    | \bCUBLAS_STATUS_ALLOC_FAILED\b | \bCUSOLVER_STATUS_ALLOC_FAILED\b | \bCUFFT_ALLOC_FAILED\b
    | \bCUBLAS_STATUS_NOT_INITIALIZED\b        # making a handle takes memory first
    | \bCUDNN_STATUS_ALLOC_FAILED\b | \bCUDNN_STATUS_INTERNAL_ERROR_(?:DEVICE|HOST)_ALLOCATION_FAILED\b
    | \bFIND\ was\ unable\ to\ find\ an\ engine\b      # no engine's workspace could be had
    | \bcudaHostAlloc\b.*\bfail | \bfailed\ to\ (?:allocate|pin|page-lock)\b.*\bmemory\b
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_NOT_OOM = re.compile(r"out of resources?\b.*shared memory", re.IGNORECASE | re.DOTALL)
"""Triton's message for a kernel that does not fit the device, which has nothing to do with free memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error, or one in its chain, says that the device or the host has no memory left.

    An error while a CUDA graph is captured is only the context of the error that ends the capture.
    """
    return any(_is_oom_message(each) for each in _exception_chain(error))


def _is_oom_message(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == _EXCEPTION_NAME:
        return True
    text = str(error)
    # Only these types are raised by libraries: this package's own messages may mention memory too.
    return (
        isinstance(error, RuntimeError | OSError)
        and not _NOT_OOM.search(text)
        and _OOM_PATTERNS.search(text) is not None
    )


def _exception_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, its causes and its contexts."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting.append(each.__cause__)
        if not each.__suppress_context__:
            waiting.append(each.__context__)
