"""Rows to 8-bit floats as a Triton kernel: one read, and a write of half as many bytes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from personalive.pipelines.personalive.kernels.operations import FLOAT8, LARGEST, TINIEST
from personalive.pipelines.personalive.kernels.tuning import tuned


@tuned([({"ROWS": 4}, 4), ({"ROWS": 1}, 4), ({"ROWS": 2}, 8)], key=["channels"])
@triton.jit
def _quantized(
    values, codes, scales, rows, channels, largest, tiniest, ROWS: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDTH)
    here = (row < rows)[:, None] & (channel < channels)[None, :]
    place = row[:, None].to(tl.int64) * channels + channel[None, :]
    value = tl.load(values + place, mask=here, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(value), axis=1) / largest, tiniest)
    code = tl.minimum(tl.maximum(value / scale[:, None], -largest), largest)
    tl.store(codes + place, code.to(codes.dtype.element_ty), mask=here)
    tl.store(scales + row, scale, mask=row < rows)


@torch.library.custom_op("personalive::quantized", mutates_args=())
def quantized(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values (N, C) as float8 and each row's scale, float32 (N, 1)."""
    values = values.contiguous()
    rows, channels = values.shape
    codes = torch.empty(values.shape, dtype=FLOAT8, device=values.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=values.device)
    _quantized[lambda meta: (triton.cdiv(rows, meta["ROWS"]),)](
        values, codes, scales, rows, channels, LARGEST, TINIEST, WIDTH=triton.next_power_of_2(channels)
    )
    return codes, scales


@quantized.register_fake
def _(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.new_empty(values.shape, dtype=FLOAT8), values.new_empty(len(values), 1, dtype=torch.float32)
