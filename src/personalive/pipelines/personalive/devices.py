"""Where the networks run, and what they compute in there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from personalive.errors import PipelineUnavailableError


def device_of(name: str) -> torch.device:
    """The device of that name, "auto" for the best there is.

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


@contextmanager
def exact_float32() -> Iterator[None]:
    """In the block, what computes in float32 on a GPU does so, and not in TensorFloat-32.

    PyTorch lets convolutions take the latter by default. It has no more digits than float16, and what is kept in
    float32 here is kept so for its digits. Holds for the whole process while the block runs.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The type of that name; "auto" is float16 on a CUDA device and float32 elsewhere.

    "float8" is float16 too: only feed-forwards are quantized (`quantization.py`).
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name == "float8":
        return torch.float16
    dtype: torch.dtype = getattr(torch, name)
    return dtype
