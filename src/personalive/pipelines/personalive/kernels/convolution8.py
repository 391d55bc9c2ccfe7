"""A convolution of 8-bit floats, 3×3 or 1×1, as a Triton kernel: a product for each tap, summed where it is made.

Pictures lie channels-last. A tile of one is brought by the GPU's tensor memory accelerator, which fills with zeros
whatever lies outside of the picture: padding is not made. A program makes one tile after the other, and the next
one's operands come while this one is written. A 1×1 convolution is a product of matrices, to which a total may be
added before it is written.
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

from personalive.pipelines.personalive.kernels.float8 import FLOAT8, MULTIPLE
from personalive.pipelines.personalive.kernels.registered import Registered
from personalive.pipelines.personalive.kernels.tuning import INTERPRETED

_ACROSS = 16
"""Pixels of a tile along a row, where there are as many."""


class _Tiles(NamedTuple):
    """Pixels, outputs, inputs of a tile, the warps that make it, and how many tiles' operands are on their way."""

    pixels: int
    outputs: int
    inputs: int
    warps: int
    stages: int

    @property
    def nbytes(self) -> int:
        """What they need of a multiprocessor's own memory: operands, results and what is added to them."""
        return self.stages * (self.pixels + self.outputs) * self.inputs + 2 * self.pixels * self.outputs


_WIDE = _Tiles(128, 256, 128, 8, 3)
_LARGE = _Tiles(128, 128, 128, 8, 3)
_SMALL = _Tiles(128, 64, 64, 4, 3)
_TINY = _Tiles(32, 32, 32, 4, 2)
"""For the interpreter, which takes as long for what is outside of a picture."""


@triton.jit
def _convolution8(
    x, weight, factors, bias, total, out, tiles, across, right, down, outputs,
    SIDE: tl.constexpr, CHANNELS: tl.constexpr, ADDED: tl.constexpr, PROGRAMS: tl.constexpr,
    PICTURES: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    pixels: tl.constexpr = PICTURES * HIGH * WIDE
    parts: tl.constexpr = (CHANNELS + INPUTS - 1) // INPUTS
    for tile in tl.range(tl.program_id(0), tiles, PROGRAMS, flatten=True):
        first = (tile % across) * OUTPUTS
        place = tile // across
        column = (place % right) * WIDE
        row = (place // right % down) * HIGH
        picture = (place // (right * down)) * PICTURES
        products = tl.zeros([pixels, OUTPUTS], tl.float32)
        for step in range(0, SIDE * SIDE * parts):
            tap = step // parts
            begin = (step % parts) * INPUTS
            given = x.load([picture, row + tap // SIDE - SIDE // 2, column + tap % SIDE - SIDE // 2, begin])
            taken = weight.load([tap, first, begin])
            products = tl.dot(given.reshape(pixels, INPUTS), taken.reshape(OUTPUTS, INPUTS).T, products)
        channel = first + tl.arange(0, OUTPUTS)
        result = products * tl.load(factors + channel, mask=channel < outputs, other=0.0)[None, :]
        if ADDED:
            result += tl.load(bias + channel, mask=channel < outputs, other=0.0).to(tl.float32)[None, :]
            result += total.load([picture, row, column, first]).reshape(pixels, OUTPUTS).to(tl.float32)
        out.store([picture, row, column, first], result.to(out.dtype).reshape(PICTURES, HIGH, WIDE, OUTPUTS))


def fits(codes: Tensor, weight: Tensor) -> bool:
    """Whether the kernels take codes of K channels, and a weight (taps, C, K): both multiples of 16."""
    return (
        codes.dtype == weight.dtype == FLOAT8
        and weight.shape[2] % MULTIPLE == 0
        and weight.shape[1] % MULTIPLE == 0
    )


def empty(codes: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Pictures for what is made of those, (N, C, h, w) channels-last."""
    size = (len(codes), weight.shape[1], *codes.shape[2:])
    return torch.empty(size, dtype=dtype, device=codes.device, memory_format=torch.channels_last)


@Registered
def convolution8(codes: Tensor, weight: Tensor, factors: Tensor, dtype: torch.dtype, wide: bool) -> Tensor:
    """Codes (N, K, h, w) with a weight (9, C, K): values (N, C, h, w) channels-last, padded by 1, without a bias.

    Each output's product is multiplied by its factor, float32 (C,). `wide`: in tiles of twice the outputs.
    """
    codes = codes.contiguous(memory_format=torch.channels_last)
    out = empty(codes, weight, dtype)
    given, made = codes.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1)
    _launch(given, weight, factors, None, None, made, _device(codes.device, wide))
    return out


@convolution8.register_fake
def _(codes: Tensor, weight: Tensor, factors: Tensor, dtype: torch.dtype, wide: bool) -> Tensor:
    del factors, wide
    return empty(codes, weight, dtype)


@Registered
def product8(codes: Tensor, weight: Tensor, factors: Tensor, bias: Tensor, total: Tensor) -> Tensor:
    """total (…, C) + the product of codes (…, K) and a weight (C, K) times factors (C,), + bias (C,)."""
    total = total.contiguous()
    out = torch.empty_like(total)
    given, added, made = (each.contiguous().flatten(0, -2)[None, None] for each in (codes, total, out))
    _launch(given, weight.contiguous()[None], factors, bias, added, made, _device(codes.device, False))
    return out


@product8.register_fake
def _(codes: Tensor, weight: Tensor, factors: Tensor, bias: Tensor, total: Tensor) -> Tensor:
    del codes, weight, factors, bias
    return total.new_empty(total.shape)


def _launch(
    given: Tensor,
    weight: Tensor,
    factors: Tensor,
    bias: Tensor | None,
    total: Tensor | None,
    out: Tensor,
    device: tuple[_Tiles, int],
) -> None:
    """Pictures (N, h, w, K), weight (taps, C, K) and what is written, (N, h, w, C), like the total."""
    tiles, processors = device
    count, height, width, channels = given.shape
    outputs = out.shape[3]
    pictures, high, wide = shape(tiles.pixels, height, width)
    right, down, across = (
        triton.cdiv(width, wide),
        triton.cdiv(height, high),
        triton.cdiv(outputs, tiles.outputs),
    )
    every = triton.cdiv(count, pictures) * down * right * across
    programs = min(processors, every)
    result = TensorDescriptor.from_tensor(out, [pictures, high, wide, tiles.outputs])
    _convolution8[(programs,)](
        TensorDescriptor.from_tensor(given, [pictures, high, wide, tiles.inputs]),
        TensorDescriptor.from_tensor(weight, [1, tiles.outputs, tiles.inputs]),
        factors,
        factors if bias is None else bias,
        result if total is None else TensorDescriptor.from_tensor(total, [pictures, high, wide, tiles.outputs]),
        result,
        every, across, right, down, outputs,
        SIDE=3 if len(weight) > 1 else 1, CHANNELS=channels, ADDED=total is not None, PROGRAMS=programs,
        PICTURES=pictures, HIGH=high, WIDE=wide, OUTPUTS=tiles.outputs, INPUTS=tiles.inputs,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip


def shape(pixels: int, height: int, width: int) -> tuple[int, int, int]:
    """Pictures, rows and columns of a tile of so many pixels, all powers of two, for pictures of that size."""
    wide = min(pixels, triton.next_power_of_2(width), _ACROSS if height > 1 else pixels)
    high = min(pixels // wide, triton.next_power_of_2(height))
    return pixels // (wide * high), high, wide


@cache
def _device(device: torch.device, wide: bool) -> tuple[_Tiles, int]:
    """The tiles that fit a device, and its multiprocessors: as many programs run, each for itself."""
    if INTERPRETED:
        return _TINY, 2
    index = torch.cuda.current_device() if device.index is None else device.index
    properties = driver.active.utils.get_device_properties(index)
    shared = properties["max_shared_mem"]
    fitting = (tiles for tiles in ((_WIDE, _LARGE) if wide else (_LARGE,)) if shared >= tiles.nbytes)
    return next(fitting, _SMALL), properties["multiprocessor_count"]
