"""Selection of the operations for a device."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn

from personalive.pipelines.diffusion.kernels.attention import MEMORY_EFFICIENT_BACKENDS
from personalive.pipelines.diffusion.kernels.autotuned_ops import AutotunedOperations
from personalive.pipelines.diffusion.kernels.choice_cache import KernelChoiceCache
from personalive.pipelines.diffusion.kernels.gpu_support import find_gpu_family
from personalive.pipelines.diffusion.kernels.kernel_errors import format_error, is_memory_failure
from personalive.pipelines.diffusion.kernels.operations import PLAIN_OPERATIONS, Operations, TensorWithStats
from personalive.pipelines.diffusion.kernels.selector import KernelSelector
from personalive.pipelines.diffusion.kernels.timing import CudaKernelTimer

_log = logging.getLogger(__name__)

_CHANNELS, _SIDE = 64, 8


def select_operations(
    device: torch.device, cache_dir: Path | None = None, attention: str = "auto"
) -> Operations:
    """Return operations that use the faster of Triton and PyTorch at each shape, if CUDA and Triton work.

    Measurements are kept in the `cache_dir`. `attention` is "auto", or the name of PyTorch's kernel to use. Triton
    may be installed and not work, for example without a C compiler: that is logged, and PyTorch's are returned.
    """
    if device.type != "cuda" or find_gpu_family(torch.cuda.get_device_capability(device)) is None:
        return PLAIN_OPERATIONS
    try:
        from personalive.pipelines.diffusion.kernels.triton_ops import TritonOperations
    except ImportError:
        return PLAIN_OPERATIONS
    fused = TritonOperations(device)
    try:
        _check_triton_works(fused, device)
    except Exception as error:  # compiler, driver and library each raise other exceptions
        if is_memory_failure(error):
            raise
        _log.warning("the fused kernels are not used, Triton does not work here: %s", format_error(error))
        return PLAIN_OPERATIONS
    chooser = KernelSelector(CudaKernelTimer(), KernelChoiceCache(cache_dir))
    return AutotunedOperations(fused, chooser, MEMORY_EFFICIENT_BACKENDS if attention == "auto" else ())


def _check_triton_works(operations: Operations, device: torch.device) -> None:
    """Run the group norm, for which the memory layout is chosen: without it PyTorch's layout is better."""
    norm = nn.GroupNorm(2, _CHANNELS, device=device, dtype=torch.float16).requires_grad_(False)
    picture = torch.zeros(1, _CHANNELS, _SIDE, _SIDE, device=device, dtype=torch.float16)
    operations.group_norm(TensorWithStats(picture), norm, silu=True)
