"""The choice of the device that the networks run on, and of the type that they compute in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from personalive.errors import InputError, PipelineUnavailableError

_MIN_BFLOAT16_CAPABILITY = (8, 0)
"""The compute capability from which GPUs support bfloat16; PyTorch emulates it on others."""


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the best one available.

    Raises `PipelineUnavailableError` for one that this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise PipelineUnavailableError(
            f"There is no {name} here ({torch.cuda.device_count()} CUDA devices). Take another device, or auto."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise PipelineUnavailableError("There is no MPS device here. Take another device, or auto.")
    return device


class _Tf32Guard:
    """A counter of users that need exact float32; it disables TensorFloat-32 in the process while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._restore: Callable[[], None] = lambda: None

    @contextmanager
    def hold(self) -> Iterator[None]:
        with self._lock:
            if self._users == 0:
                self._restore = _disable_tf32()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._restore()


_tf32_guard = _Tf32Guard()


def _disable_tf32() -> Callable[[], None]:
    """Disable TensorFloat-32 for convolutions, and return a function that restores the settings.

    PyTorch reads an older setting and a newer one, and raises an error where they contradict each other.
    """
    cudnn: Any = torch.backends.cudnn
    newer = [(kind, kind.fp32_precision) for kind in (cudnn.conv, cudnn.rnn)]
    try:
        older = cudnn.allow_tf32
        cudnn.allow_tf32 = False
    except RuntimeError:  # the calling program has used the newer setting
        older = None
    cudnn.conv.fp32_precision = "ieee"

    def restore() -> None:
        if older is not None:
            cudnn.allow_tf32 = older
        for kind, precision in newer:
            kind.fp32_precision = precision

    return restore


@contextmanager
def exact_float32() -> Iterator[None]:
    """Have a GPU compute float32 convolutions in float32 within the block, and not in TensorFloat-32.

    By default PyTorch uses TensorFloat-32 for convolutions, but not for matrix products. It has no more digits than
    float16, while what is in float32 here needs the digits. Blocks may be nested, and run on several threads.
    """
    with _tf32_guard.hold():
        yield


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the type of that name; "auto" is float16 on a CUDA device and float32 elsewhere.

    "float8" is float16 too: `quantization.py` replaces layers of such networks. Raises `InputError` for bfloat16
    on a GPU that does not support it.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name == "float8":
        return torch.float16
    if name == "bfloat16" and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < _MIN_BFLOAT16_CAPABILITY:
            raise InputError(
                f"dtype=bfloat16 needs a GPU of compute capability 8.0 or later, and {device} has "
                f"{'.'.join(map(str, capability))}: take float16 or auto."
            )
    dtype: torch.dtype = getattr(torch, name)
    return dtype
