"""PyTorch's kernels for attention by name, each to be asked for by itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}

FAST = ("cudnn", "flash", "efficient")
"""Those that do not keep all scores in memory. `math` does: it takes every shape, and is never the faster."""

_HOPPER = (9, 0)
_ON_HOPPER = [BACKENDS[name] for name in (*FAST, "math")]


def preferred(device: torch.device, attention: str = "auto") -> AbstractContextManager[Any]:
    """In the block, PyTorch takes that one of its kernels or, for "auto", the likeliest to be fast.

    For where nothing is measured. On Hopper cuDNN's is the fastest for long keys (2.3 ms against flash's 4.2 at
    64×64 with 8,192 keys, on an H100), and leaves what it cannot do to the next.
    """
    if attention != "auto":
        own: AbstractContextManager[Any] = sdpa_kernel(BACKENDS[attention])
        return own
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _HOPPER:
        return nullcontext()
    ordered: AbstractContextManager[Any] = sdpa_kernel(_ON_HOPPER, set_priority=True)
    return ordered


def by_backend(name: str, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """`run` with that one of PyTorch's kernels; raises RuntimeError where the kernel does not take the shape.

    Which kernels may be used is a setting of the whole process: only one thread may run attention at a time.
    """
    backend = BACKENDS[name]

    def call() -> Tensor:
        with sdpa_kernel(backend):
            return run()

    return call


def quietly(call: Callable[[], object]) -> None:
    """Call it without PyTorch's warnings, by which it explains at length why a kernel does not take a shape."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call()
