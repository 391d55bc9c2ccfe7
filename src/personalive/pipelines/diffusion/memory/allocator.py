"""How PyTorch takes memory from a GPU."""

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
"""Bytes; less may be found in what PyTorch holds already."""


def enable_expandable_segments(device: torch.device) -> None:
    """Have PyTorch enlarge what it holds of a GPU instead of taking pieces that fit nothing else later.

    Recordings of several shapes share one pool, which otherwise holds 1 GB more than any of them needs. To be
    called before tensors are made. Where the environment says how memory is taken, it decides.
    """
    if device.type != "cuda" or any(os.environ.get(name) for name in _ALLOCATOR_VARIABLES):
        return
    try:
        _set_allocator(_ALLOCATOR_SETTINGS.format(True))
        # Windows, WSL2 and old drivers take the setting, and fail or warn when memory is taken.
        _try_allocator(device)
    except Exception as error:  # of the driver or the library
        _log.info("memory is taken as PyTorch does by itself: %s", " ".join(str(error).split())[:200])
        with contextlib.suppress(AttributeError, RuntimeError, ValueError):
            _set_allocator(_ALLOCATOR_SETTINGS.format(False))


def _try_allocator(device: torch.device) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.empty(_TRIAL_BYTES, dtype=torch.uint8, device=device)
        torch.cuda.empty_cache()
    for warning in said:
        if "expandable_segments" in str(warning.message):
            raise RuntimeError(str(warning.message))
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _set_allocator(settings: str) -> None:
    """PyTorch gives this function another name from version to version."""
    newest: Callable[[str], None] | None = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    (newest or torch.cuda.memory._set_allocator_settings)(settings)


def empty_cache(device: torch.device) -> None:
    """Give what is unused back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def plannable_bytes(device: torch.device) -> int:
    """Bytes of a CUDA device that a pipeline about to be loaded may fill with tensors.

    What libraries, recordings and the kernels' code will take beside them is subtracted.
    """
    return max(unused_bytes(device) - RESERVED_BYTES, 0)


def total_bytes(device: torch.device) -> int | None:
    """Bytes of a CUDA device, whoever has them; None elsewhere, where the memory is the host's."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def unused_bytes(device: torch.device) -> int:
    """Bytes of a CUDA device that this process can yet have, as the driver and the process's own limit tell.

    Elsewhere nobody tells: then there is no end of them.
    """
    if device.type != "cuda":
        return sys.maxsize
    free, _ = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    total = torch.cuda.get_device_properties(device).total_memory
    free = min(free, int(_memory_fraction(device) * total) - reserved)
    return max(free + reserved - torch.cuda.memory_allocated(device), 0)


def _memory_fraction(device: torch.device) -> float:
    """The share of a CUDA device's memory that this process may take."""
    ask: Callable[[int | None], float] | None = getattr(torch.cuda, "get_per_process_memory_fraction", None)
    # By its number, None being the current one: a device without one is not taken.
    return 1.0 if ask is None else ask(device.index)


def run_with_memory_limit(device: torch.device, nbytes: int, run: Callable[[], T]) -> T:
    """What `run` returns, having taken no more than `nbytes` beyond what this process holds of the device.

    cuDNN may choose an algorithm whose workspace is ten times what it computes on (69 GB for a float32 convolution
    of 192×128 pixels), and PyTorch keeps what was taken once; refused so much, it takes the next algorithm. Where
    `run` cannot do with that, it runs again without a limit.
    """
    if device.type != "cuda":
        return run()
    try:
        with _memory_limit(device, nbytes):
            return run()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Here, since the error's traceback keeps alive what filled the memory.
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
