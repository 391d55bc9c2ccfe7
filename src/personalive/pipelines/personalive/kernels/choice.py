"""Which operations a device gets."""

from __future__ import annotations

import logging

import torch

from personalive.pipelines.personalive.kernels.families import family, offered
from personalive.pipelines.personalive.kernels.operations import PLAIN, Operations

_log = logging.getLogger(__name__)

_WIDTH = 64


def fastest(device: torch.device) -> Operations:
    """Triton's where the device has CUDA and Triton works, else PyTorch's.

    Triton may be there and not work, for want of a C compiler say: that is logged.
    """
    if device.type != "cuda" or family(torch.cuda.get_device_capability(device)) is None:
        return PLAIN
    try:
        from personalive.pipelines.personalive.kernels.fused import TritonOperations
    except ImportError:
        return PLAIN
    operations, tokens = TritonOperations(device), torch.zeros(1, _WIDTH, device=device, dtype=torch.float16)
    try:
        operations.gated(tokens)
    except Exception as error:  # whatever a compiler, a driver or the library may raise
        _log.warning("the fused kernels are not used, Triton does not work here: %s", error)
        return PLAIN
    if not offered("_gated_product", torch.cuda.get_device_capability(device)):
        return TritonOperations(device, pairs=False)
    try:
        operations.gated_product(tokens, tokens.expand(2 * _WIDTH, -1), tokens.new_zeros(2 * _WIDTH))
    except Exception as error:  # the one kernel that asks for more than any GPU has
        _log.info("gates are opened apart from the product before them: %s", error)
        return TritonOperations(device, pairs=False)
    return operations
