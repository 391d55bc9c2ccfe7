"""PyTorch's allocation of GPU memory: its settings, limits, and what is free."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from personalive.out_of_memory import is_out_of_memory
from personalive.pipelines.diffusion.memory.plan import RESERVED_BYTES

_log = logging.getLogger(__name__)

T = TypeVar("T")

_ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
_ALLOCATOR_SETTINGS = "expandable_segments:{}"
_TRIAL_BYTES = 32 << 20
"""The bytes of a trial allocation; fewer may come from memory that PyTorch holds already."""


def enable_expandable_segments(device: torch.device) -> None:
    """Have PyTorch grow its segments of GPU memory, instead of adding blocks that fit nothing else later.

    Recordings of several shapes share one pool, which otherwise holds 1 GB more than any of them needs. Call this
    before tensors are made. Allocator settings in the environment take precedence.
    """
    if device.type != "cuda" or any(os.environ.get(name) for name in _ALLOCATOR_VARIABLES):
        return
    try:
        _set_allocator(_ALLOCATOR_SETTINGS.format(True))
        # Windows, WSL2 and old drivers accept the setting, and fail or warn when memory is allocated.
        _try_allocator(device)
    except Exception as error:  # the driver and the library raise errors of different types
        _log.info("memory is allocated by PyTorch's default settings: %s", " ".join(str(error).split())[:200])
        with contextlib.suppress(AttributeError, RuntimeError, ValueError):
            _set_allocator(_ALLOCATOR_SETTINGS.format(False))


def _try_allocator(device: torch.device) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.empty(_TRIAL_BYTES, dtype=torch.uint8, device=device)
        torch.cuda.empty_cache()
    for warning in caught:
        if "expandable_segments" in str(warning.message):
            raise RuntimeError(str(warning.message))
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _set_allocator(settings: str) -> None:
    """Change the allocator's settings, by a function whose name depends on PyTorch's version."""
    newest: Callable[[str], None] | None = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    (newest or torch.cuda.memory._set_allocator_settings)(settings)


def empty_cache(device: torch.device) -> None:
    """Return unused memory to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def plannable_bytes(device: torch.device) -> int:
    """Return the bytes of a CUDA device that a pipeline about to be loaded may fill with tensors.

    What libraries, recordings and the kernels' code will take in addition is subtracted.
    """
    return max(unused_bytes(device) - RESERVED_BYTES, 0)


def total_bytes(device: torch.device) -> int | None:
    """Return the bytes of a CUDA device, used or not; None for other devices, whose memory is the host's."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def unused_bytes(device: torch.device) -> int:
    """Return the bytes of a CUDA device that this process can still use, by the driver and the process's limit.

    Other devices do not report it; the result is `sys.maxsize` for them.
    """
    if device.type != "cuda":
        return sys.maxsize
    free, _ = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    total = torch.cuda.get_device_properties(device).total_memory
    free = min(free, int(_memory_fraction(device) * total) - reserved)
    return max(free + reserved - torch.cuda.memory_allocated(device), 0)


def _memory_fraction(device: torch.device) -> float:
    """Return the share of a CUDA device's memory that this process may use."""
    ask: Callable[[int | None], float] | None = getattr(torch.cuda, "get_per_process_memory_fraction", None)
    # By the device's index, since a device without one is refused; None is the current device.
    return 1.0 if ask is None else ask(device.index)


def run_with_memory_limit(device: torch.device, nbytes: int, run: Callable[[], T]) -> T:
    """Return the result of `run`, which may allocate at most `nbytes` more of the device than this process holds.

    cuDNN may choose an algorithm whose workspace is ten times the size of its data (69 GB for a float32 convolution
    of 192×128 pixels), and PyTorch keeps that memory afterwards. When the allocation is refused, cuDNN chooses the
    next algorithm. If the limit is too low for `run`, it runs again without one.
    """
    if device.type != "cuda":
        return run()
    try:
        with _memory_limit(device, nbytes):
            return run()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Outside of the handler, since the error's traceback keeps alive what filled the memory.
    return run()


@contextlib.contextmanager
def _memory_limit(device: torch.device, nbytes: int) -> Iterator[None]:
    before = _memory_fraction(device)
    total = torch.cuda.get_device_properties(device).total_memory
    limit = (torch.cuda.memory_reserved(device) + nbytes) / total
    torch.cuda.set_per_process_memory_fraction(min(limit, before), device.index)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(before, device.index)
