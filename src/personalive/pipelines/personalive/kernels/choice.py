"""Which operations a device gets."""

from __future__ import annotations

import logging

import torch

from personalive.pipelines.personalive.kernels.operations import PLAIN, Operations

_log = logging.getLogger(__name__)


def fastest(device: torch.device) -> Operations:
    """Triton's where the device has CUDA and Triton works, else PyTorch's.

    Triton may be there and not work, for want of a C compiler say: that is logged.
    """
    if device.type != "cuda":
        return PLAIN
    try:
        from personalive.pipelines.personalive.kernels.fused import TritonOperations
    except ImportError:
        return PLAIN
    operations = TritonOperations()
    try:
        operations.gated(torch.zeros(1, 32, device=device))
    except Exception as error:  # whatever a compiler, a driver or the library may raise
        _log.warning("the fused kernels are not used, Triton does not work here: %s", error)
        return PLAIN
    return operations
