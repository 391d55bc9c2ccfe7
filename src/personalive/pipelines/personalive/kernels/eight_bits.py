"""Rows to 8-bit floats as Triton kernels: one read, and a write of half as many bytes."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from personalive.pipelines.personalive.kernels.functions import gelu, scaled_rows
from personalive.pipelines.personalive.kernels.operations import FLOAT8, LARGEST, TINIEST
from personalive.pipelines.personalive.kernels.registered import Registered
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
    code, scale = scaled_rows(value, largest, tiniest)
    tl.store(codes + place, code.to(codes.dtype.element_ty), mask=here)
    tl.store(scales + row, scale, mask=row < rows)


@Registered
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


@tuned([({"ROWS": 1}, 4), ({"ROWS": 1}, 8), ({"ROWS": 2}, 8)], key=["channels"])
@triton.jit
def _gated_quantized(
    projected, codes, scales, rows, channels, largest, tiniest, ROWS: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDTH)
    here = (row < rows)[:, None] & (channel < channels)[None, :]
    read = row[:, None].to(tl.int64) * (2 * channels) + channel[None, :]
    value = tl.load(projected + read, mask=here, other=0.0).to(tl.float32)
    gate = tl.load(projected + read + channels, mask=here, other=0.0).to(tl.float32)
    code, scale = scaled_rows(value * gelu(gate), largest, tiniest)
    place = row[:, None].to(tl.int64) * channels + channel[None, :]
    tl.store(codes + place, code.to(codes.dtype.element_ty), mask=here)
    tl.store(scales + row, scale, mask=row < rows)


@Registered
def gated_quantized(projected: Tensor) -> tuple[Tensor, Tensor]:
    """GEGLU of (N, 2·C) as float8 (N, C) and each row's scale, float32 (N, 1)."""
    projected = projected.contiguous()
    rows, channels = projected.shape[0], projected.shape[1] // 2
    codes = torch.empty(rows, channels, dtype=FLOAT8, device=projected.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=projected.device)
    _gated_quantized[lambda meta: (triton.cdiv(rows, meta["ROWS"]),)](
        projected, codes, scales, rows, channels, LARGEST, TINIEST, WIDTH=triton.next_power_of_2(channels)
    )
    return codes, scales


@gated_quantized.register_fake
def _(projected: Tensor) -> tuple[Tensor, Tensor]:
    rows, channels = projected.shape[0], projected.shape[1] // 2
    return projected.new_empty(rows, channels, dtype=FLOAT8), projected.new_empty(
        rows, 1, dtype=torch.float32
    )
