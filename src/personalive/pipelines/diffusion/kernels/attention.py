"""PyTorch's attention kernels by name, and how to select one of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

Result = TypeVar("Result")

BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}

MEMORY_EFFICIENT_BACKENDS = ("cudnn", "flash", "efficient")
"""The kernels that do not keep all scores in memory. `math` does: it takes every shape, and is never faster."""

_HOPPER = (9, 0)
_HOPPER_PRIORITY = [BACKENDS[name] for name in (*MEMORY_EFFICIENT_BACKENDS, "math")]


def prefer_backend(device: torch.device, attention: str = "auto") -> AbstractContextManager[Any]:
    """Return a context in which PyTorch uses the named kernel or, for "auto", the one that is probably fastest.

    It serves where nothing is measured. On Hopper cuDNN's is the fastest for long keys (2.3 ms against flash's 4.2
    at 64×64 with 8,192 keys, on an H100); shapes that it does not take go to the next.
    """
    if attention != "auto":
        own: AbstractContextManager[Any] = sdpa_kernel(BACKENDS[attention])
        return own
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _HOPPER:
        return nullcontext()
    ordered: AbstractContextManager[Any] = sdpa_kernel(_HOPPER_PRIORITY, set_priority=True)
    return ordered


def with_backend(name: str, call_attention: Callable[[], Result]) -> Callable[[], Result]:
    """Return `call_attention` with the named kernel, which raises RuntimeError for a shape that it does not take.

    The allowed kernels are a setting of the whole process: only one thread may run attention at a time.
    """
    backend = BACKENDS[name]

    def call() -> Result:
        with sdpa_kernel(backend):
            return call_attention()

    return call


def call_without_warnings(call: Callable[[], object]) -> None:
    """Call it without PyTorch's warnings, which explain at length why a kernel does not take a shape."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()
