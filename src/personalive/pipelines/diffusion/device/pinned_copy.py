"""Copies between the host's memory and the device's that neither has to wait for longer than necessary.

A copy from or to ordinary memory blocks the host until the device has done all earlier work. Page-locked memory is
copied asynchronously; PyTorch caches such memory for reuse. Where there is no such memory, and on devices other
than CUDA, these are plain copies.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from personalive.pipelines.diffusion.device.pinned_memory import allocate_host_tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor from the host to the device, without waiting; return it unchanged if it is there already."""
    if torch.device(device).type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    waiting = allocate_host_tensor(tensor.shape, tensor.dtype, pinned=True)
    # By NumPy, on this thread: PyTorch would wake its other threads, which took 3 ms on a host with 16 cores.
    np.copyto(_as_bytes(waiting), _as_bytes(tensor.contiguous()))
    return waiting.to(device, non_blocking=True)


def to_host(tensor: Tensor) -> Callable[[], Tensor]:
    """Start to copy a tensor to the CPU; the function returned waits for this copy only, and returns it."""
    if not tensor.is_cuda:
        return tensor.cpu
    copy = allocate_host_tensor(tensor.shape, tensor.dtype, pinned=True)
    copy.copy_(tensor, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(tensor.device))

    def wait() -> Tensor:
        done.synchronize()
        return copy

    return wait


def _as_bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """Return a view of the bytes of a contiguous tensor of any type in the host's memory."""
    seen: NDArray[np.uint8] = tensor.flatten().view(torch.uint8).numpy()
    return seen
