"""A linear and its GEGLU in one Triton kernel: the linear's output is never written to memory.

The linear's outputs are interleaved, each value next to its gate, so that both are in one thread's registers when a
tile of products is done. Tiles are loaded by the GPU's tensor memory accelerator where it has one, and a program
computes one tile after the other: the next one's operands are loaded while the gates of this one are applied.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import driver
from triton.tools.tensor_descriptor import TensorDescriptor

from personalive.pipelines.diffusion.kernels.autotune import IS_INTERPRETED
from personalive.pipelines.diffusion.kernels.custom_op import CustomOp
from personalive.pipelines.diffusion.kernels.fp8 import FLOAT8
from personalive.pipelines.diffusion.kernels.triton_utils import codes, gelu

_ALIGNMENT = 16
"""Bytes of which rows must be multiples, so that whole tiles can be loaded."""


class _TileConfig(NamedTuple):
    """Rows, outputs and inputs of a tile, its number of warps, and the number of pipeline stages."""

    rows: int
    outputs: int
    inputs: int
    warps: int
    stages: int

    @property
    def shared_memory_nbytes(self) -> int:
        """Bytes of shared memory for the 16-bit operands, of values and gates."""
        return 2 * self.stages * (self.rows + 2 * self.outputs) * self.inputs


_LARGE_TILES = _TileConfig(128, 128, 64, 8, 3)
_SMALL_TILES = _TileConfig(128, 64, 32, 4, 3)


@triton.jit
def _linear_geglu_kernel(
    tokens, weight, bias, factors, out, rows, outputs, gain,
    CODES: tl.constexpr, WIDTH: tl.constexpr,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """Compute tiles of value · gelu(gate); the rows of weight are those of values and gates in turn."""
    across = tl.cdiv(outputs, OUTPUTS)
    for tile in tl.range(tl.program_id(0), tl.cdiv(rows, ROWS) * across, PROGRAMS, flatten=True):
        row = (tile // across) * ROWS
        first = (tile % across) * OUTPUTS
        products = tl.zeros([ROWS, 2 * OUTPUTS], tl.float32)
        for begin in range(0, WIDTH, INPUTS):
            given = tokens.load([row, begin])
            products = tl.dot(given, weight.load([2 * first, begin]).T, products)
        place = 2 * first + tl.arange(0, 2 * OUTPUTS)
        if CODES:
            products *= tl.load(factors + place, mask=place < 2 * outputs, other=0.0)[None, :]
        term = tl.load(bias + place, mask=place < 2 * outputs, other=0.0).to(tl.float32)
        value, gate = tl.split(tl.reshape(products + term[None, :], [ROWS, OUTPUTS, 2]))
        gated = value * gelu(gate)
        if CODES:
            gated = codes(gated, gain)
        out.store([row, first], gated.to(out.dtype))


def is_supported(tokens: Tensor, weight: Tensor) -> bool:
    """Return whether the kernel takes tokens (…, K) and a weight (2·C, K).

    K and C must be multiples of 16 bytes, in 16-bit floats or codes.
    """
    multiple = _ALIGNMENT // tokens.element_size()
    return (
        tokens.dtype in (torch.float16, torch.bfloat16, FLOAT8)
        and weight.shape[1] % multiple == 0
        and weight.shape[0] % (2 * multiple) == 0
    )


def empty_output(tokens: Tensor, weight: Tensor, *_: object) -> Tensor:
    """Allocate the GEGLU (…, C) of tokens (…, K) by a weight (2·C, K)."""
    return tokens.new_empty(*tokens.shape[:-1], len(weight) // 2)


@CustomOp
def linear_geglu(
    tokens: Tensor, weight: Tensor, bias: Tensor, factors: Tensor | None = None, gain: float = 1.0
) -> Tensor:
    """Return GEGLU (…, C) of tokens (…, K) by an interleaved weight (2·C, K) and bias (2·C,).

    The GELU is exact, and sums are float32. Tokens and weight may be codes, whose products are multiplied by
    factors float32 (2·C,); the result is then codes too, with that gain.
    """
    given, weight = tokens.contiguous().flatten(0, -2), weight.contiguous()
    out = empty_output(given, weight)
    (rows, outputs), width = out.shape, given.shape[1]
    tiles, processors = _device_config(tokens.device)
    inputs = tiles.inputs * 2 // tokens.element_size()
    most = triton.cdiv(rows, tiles.rows) * triton.cdiv(outputs, tiles.outputs)
    programs = min(processors, most)
    _linear_geglu_kernel[(programs,)](
        TensorDescriptor.from_tensor(given, [tiles.rows, inputs]),
        TensorDescriptor.from_tensor(weight, [2 * tiles.outputs, inputs]),
        bias,
        bias if factors is None else factors,
        TensorDescriptor.from_tensor(out, [tiles.rows, tiles.outputs]),
        rows, outputs, gain, CODES=factors is not None,
        WIDTH=width, ROWS=tiles.rows, OUTPUTS=tiles.outputs, INPUTS=inputs,
        PROGRAMS=programs, num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return out.view(*tokens.shape[:-1], outputs)


linear_geglu.register_fake(empty_output)


@cache
def _device_config(device: torch.device) -> tuple[_TileConfig, int]:
    """Return the tiles that fit a device, and its number of multiprocessors, which is the number of programs."""
    if IS_INTERPRETED:
        return _SMALL_TILES, 2
    index = torch.cuda.current_device() if device.index is None else device.index
    properties = driver.active.utils.get_device_properties(index)
    large = properties["max_shared_mem"] >= _LARGE_TILES.shared_memory_nbytes
    return _LARGE_TILES if large else _SMALL_TILES, properties["multiprocessor_count"]
