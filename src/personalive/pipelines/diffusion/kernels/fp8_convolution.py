"""A 3×3 convolution of 8-bit floats as a Triton kernel: a matrix product per tap, summed in registers.

Pictures are channels-last. Tiles are loaded by the GPU's tensor memory accelerator, which fills pixels outside of
the picture with zeros, so no padded copy is made. A program computes one tile after the other, and the next one's
operands are loaded while this one is written. One compilation serves all numbers of channels.
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
from personalive.pipelines.diffusion.kernels.fp8 import FLOAT8, MULTIPLE

TAPS = 9
_ACROSS = 16
"""Pixels of a tile along a row, if the picture has as many."""


class _TileConfig(NamedTuple):
    """Pixels, outputs and inputs of a tile, its number of warps, and the number of pipeline stages."""

    pixels: int
    outputs: int
    inputs: int
    warps: int
    stages: int

    @property
    def nbytes(self) -> int:
        """Bytes of shared memory for operands and results."""
        return self.stages * (self.pixels + self.outputs) * self.inputs + 2 * self.pixels * self.outputs


_WIDE = _TileConfig(128, 256, 128, 8, 3)
_LARGE = _TileConfig(128, 128, 128, 8, 3)
_SMALL = _TileConfig(128, 64, 64, 4, 3)
_MOST_COVERED = 1.25
"""Most outputs that wide tiles may cover, over the actual ones: at 640 they are faster, at 320 slower (H100)."""
_TINY = _TileConfig(32, 32, 32, 4, 2)
"""For the interpreter, which takes as long for pixels outside of a picture as for those inside."""


@triton.jit(do_not_specialize=["tiles", "across", "right", "down"])
def _fp8_conv_kernel(
    x, weight, factors, out, tiles, across, right, down, channels, outputs,
    TAPS: tl.constexpr, PROGRAMS: tl.constexpr,
    PICTURES: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    pixels: tl.constexpr = PICTURES * HIGH * WIDE
    parts = tl.cdiv(channels, INPUTS)
    for tile in tl.range(tl.program_id(0), tiles, PROGRAMS, flatten=True):
        first = (tile % across) * OUTPUTS
        place = tile // across
        column = (place % right) * WIDE
        row = (place // right % down) * HIGH
        picture = (place // (right * down)) * PICTURES
        products = tl.zeros([pixels, OUTPUTS], tl.float32)
        for step in range(0, TAPS * parts):
            tap = step // parts
            begin = (step % parts) * INPUTS
            given = x.load([picture, row + tap // 3 - 1, column + tap % 3 - 1, begin])
            taken = weight.load([tap, first, begin])
            products = tl.dot(given.reshape(pixels, INPUTS), taken.reshape(OUTPUTS, INPUTS).T, products)
        channel = first + tl.arange(0, OUTPUTS)
        result = products * tl.load(factors + channel, mask=channel < outputs, other=0.0)[None, :]
        out.store([picture, row, column, first], result.to(out.dtype).reshape(PICTURES, HIGH, WIDE, OUTPUTS))


def is_supported(codes: Tensor, weight: Tensor) -> bool:
    """Return whether the kernels take codes of K channels and a weight (9, C, K): K and C multiples of 16."""
    return (
        codes.dtype == weight.dtype == FLOAT8
        and weight.shape[2] % MULTIPLE == 0
        and weight.shape[1] % MULTIPLE == 0
    )


def is_wide_supported(weight: Tensor) -> bool:
    """Return whether tiles with twice the outputs cover those of a weight (9, C, K) with little waste."""
    outputs = weight.shape[1]
    covered: int = triton.cdiv(outputs, _WIDE.outputs) * _WIDE.outputs
    return covered <= _MOST_COVERED * outputs


def empty_output(codes: Tensor, weight: Tensor, factors: Tensor, dtype: torch.dtype, *_: bool) -> Tensor:
    """Allocate the output of a convolution with these arguments, (N, C, h, w) channels-last."""
    del factors
    size = (len(codes), weight.shape[1], *codes.shape[2:])
    return torch.empty(size, dtype=dtype, device=codes.device, memory_format=torch.channels_last)


@CustomOp
def fp8_conv(codes: Tensor, weight: Tensor, factors: Tensor, dtype: torch.dtype, wide: bool) -> Tensor:
    """Convolve codes (N, K, h, w) by a weight (9, C, K) to values (N, C, h, w) channels-last, padded by 1, no bias.

    Each output channel is multiplied by its factor, float32 (C,). `wide`: use tiles with twice the outputs.
    """
    codes, weight = codes.contiguous(memory_format=torch.channels_last), weight.contiguous()
    out = empty_output(codes, weight, factors, dtype)
    tiles, processors = _tile_config(codes.device, wide)
    count, channels, height, width = codes.shape
    outputs = weight.shape[1]
    pictures, high, across_row = tile_shape(tiles.pixels, height, width)
    right, down = triton.cdiv(width, across_row), triton.cdiv(height, high)
    across = triton.cdiv(outputs, tiles.outputs)
    every = triton.cdiv(count, pictures) * down * right * across
    tile = [pictures, high, across_row]
    _fp8_conv_kernel[(min(processors, every),)](
        TensorDescriptor.from_tensor(_pixels(codes), [*tile, tiles.inputs]),
        TensorDescriptor.from_tensor(weight, [1, tiles.outputs, tiles.inputs]),
        factors,
        TensorDescriptor.from_tensor(_pixels(out), [*tile, tiles.outputs]),
        every, across, right, down, channels, outputs,
        TAPS=TAPS, PROGRAMS=processors, PICTURES=pictures, HIGH=high, WIDE=across_row,
        OUTPUTS=tiles.outputs, INPUTS=tiles.inputs, num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return out


fp8_conv.register_fake(empty_output)


def _pixels(pictures: Tensor) -> Tensor:
    """View the memory as (N, h, w, C) with standard strides, which pictures of one row or column may lack."""
    rows = pictures.permute(0, 2, 3, 1)
    return rows.reshape(-1).view(rows.shape)


def tile_shape(pixels: int, height: int, width: int) -> tuple[int, int, int]:
    """Return the pictures, rows and columns, powers of two, of a tile of `pixels` for pictures of that size."""
    wide = min(pixels, triton.next_power_of_2(width), _ACROSS)
    high = min(pixels // wide, triton.next_power_of_2(height))
    return pixels // (wide * high), high, wide


@cache
def _tile_config(device: torch.device, wide: bool) -> tuple[_TileConfig, int]:
    """Return the tiles that fit a device, and its number of multiprocessors, which is the number of programs."""
    if IS_INTERPRETED:
        return _TINY, 2
    index = torch.cuda.current_device() if device.index is None else device.index
    properties = driver.active.utils.get_device_properties(index)
    shared = properties["max_shared_mem"]
    fitting = (tiles for tiles in ((_WIDE, _LARGE) if wide else (_LARGE,)) if shared >= tiles.nbytes)
    return next(fitting, _SMALL), properties["multiprocessor_count"]
