"""Batch norm by running statistics and ReLU, as a Triton kernel for channels-last memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from personalive.pipelines.diffusion.kernels.autotune import autotune
from personalive.pipelines.diffusion.kernels.custom_op import CustomOp


@autotune([({"ROWS": 32, "WIDTH": 64}, 4), ({"ROWS": 8, "WIDTH": 128}, 4)], key=["channels"])
@triton.jit
def _batch_norm_relu_kernel(
    x, mean, variance, weight, bias, out, rows, channels, eps, ROWS: tl.constexpr, WIDTH: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = channel < channels
    here = (row < rows)[:, None] & inside[None, :]
    place = row[:, None].to(tl.int64) * channels + channel[None, :]
    middle = tl.load(mean + channel, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.load(variance + channel, mask=inside, other=1.0).to(tl.float32) + eps)
    scale *= tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    term = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
    value = (value - middle[None, :]) * scale[None, :] + term[None, :]
    tl.store(out + place, tl.maximum(value, 0.0).to(out.dtype.element_ty), mask=here)


@CustomOp
def batch_norm_relu(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """Return ReLU of the batch norm of x (N, C, h, w) by these statistics (C,); channels-last, in and out."""
    x = x.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x)
    channels = x.shape[1]
    rows = x.numel() // channels
    _batch_norm_relu_kernel[
        lambda meta: (triton.cdiv(rows, meta["ROWS"]), triton.cdiv(channels, meta["WIDTH"]))
    ](x, mean, variance, weight, bias, out, rows, channels, eps)
    return out


batch_norm_relu.register_fake(lambda x, *_: torch.empty_like(x, memory_format=torch.channels_last))
