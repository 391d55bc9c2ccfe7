"""Which operations a device gets."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn

from personalive.pipelines.diffusion.kernels.attention import FAST
from personalive.pipelines.diffusion.kernels.autotuned_ops import MeasuredOperations
from personalive.pipelines.diffusion.kernels.choice_cache import Choices
from personalive.pipelines.diffusion.kernels.gpu_support import family
from personalive.pipelines.diffusion.kernels.kernel_errors import first_line, out_of_memory
from personalive.pipelines.diffusion.kernels.operations import PLAIN, Operations, Summed
from personalive.pipelines.diffusion.kernels.selector import Chooser
from personalive.pipelines.diffusion.kernels.timing import CudaStopwatch

_log = logging.getLogger(__name__)

_CHANNELS, _SIDE = 64, 8


def measured(device: torch.device, folder: Path | None = None, attention: str = "auto") -> Operations:
    """Of Triton's and PyTorch's whichever is faster at each shape, where the device has CUDA and Triton works.

    What was measured is kept in the `folder`. `attention`: "auto", or another where that is PyTorch's kernel to
    take. Triton may be there and not work, for want of a C compiler say: that is logged, and all is PyTorch's.
    """
    if device.type != "cuda" or family(torch.cuda.get_device_capability(device)) is None:
        return PLAIN
    try:
        from personalive.pipelines.diffusion.kernels.triton_ops import TritonOperations
    except ImportError:
        return PLAIN
    fused = TritonOperations(device)
    try:
        _try(fused, device)
    except Exception as error:  # whatever a compiler, a driver or the library may raise
        if out_of_memory(error):
            raise
        _log.warning("the fused kernels are not used, Triton does not work here: %s", first_line(error))
        return PLAIN
    chooser = Chooser(CudaStopwatch(), Choices(folder))
    return MeasuredOperations(fused, chooser, FAST if attention == "auto" else ())


def _try(operations: Operations, device: torch.device) -> None:
    """Run the norm that all is laid out for: without it, pictures had better lie as PyTorch's wants them."""
    norm = nn.GroupNorm(2, _CHANNELS, device=device, dtype=torch.float16).requires_grad_(False)
    picture = torch.zeros(1, _CHANNELS, _SIDE, _SIDE, device=device, dtype=torch.float16)
    operations.group_norm(Summed(picture), norm, silu=True)
