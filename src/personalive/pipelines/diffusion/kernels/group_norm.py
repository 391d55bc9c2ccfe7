"""Group norm, and residual additions that compute its statistics, as Triton kernels for channels-last memory.

Statistics are float32. Sums are taken of differences from a value of the same channel, never of plain squares:
the variance of activations whose mean is far from zero would be lost.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from personalive.pipelines.diffusion.kernels.autotune import autotune
from personalive.pipelines.diffusion.kernels.custom_op import CustomOp
from personalive.pipelines.diffusion.kernels.fp8 import FLOAT8
from personalive.pipelines.diffusion.kernels.triton_utils import codes

_MIN_CHUNK_PIXELS = 256
_MAX_CHUNKS = 512
"""The most chunks in which group norm sums a picture; each has `_MIN_CHUNK_PIXELS` or more."""


def _chunk_size(pixels: int) -> int:
    """Return the pixels of a chunk."""
    return max(_MIN_CHUNK_PIXELS, -(-pixels // (_MAX_CHUNKS * _MIN_CHUNK_PIXELS)) * _MIN_CHUNK_PIXELS)


@autotune(
    [({"ROWS": 32, "WIDTH": 64}, 4), ({"ROWS": 64, "WIDTH": 64}, 8), ({"ROWS": 32, "WIDTH": 128}, 8)],
    key=["channels", "ADDED"],
)  # fmt: skip
@triton.jit
def _channel_stats_kernel(
    x, update, bias, out, sums, channels, pixels, chunk, chunks, step,
    ADDED: tl.constexpr, BIASED: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Compute each channel's Σ(x - p), Σ(x - p)² and p, its first pixel's value, of one chunk of a picture.

    With ADDED or BIASED, the update or the bias is added to the picture first, and the sum is written.
    """
    picture, part = tl.program_id(0), tl.program_id(1)
    channel = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    inside = channel < channels
    begin = part * chunk
    base = picture.to(tl.int64) * pixels * channels
    first = base + begin * channels + channel
    pivot = tl.load(x + first, mask=inside, other=0.0).to(tl.float32)
    added = tl.zeros([WIDTH], tl.float32)
    if BIASED:
        added = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
        pivot += added
    if ADDED:
        pivot += tl.load(update + first, mask=inside, other=0.0).to(tl.float32)
    # Rows are summed only at the end, since for that threads must wait for each other.
    total = tl.zeros([ROWS, WIDTH], tl.float32)
    square = tl.zeros([ROWS, WIDTH], tl.float32)
    for row in range(begin, begin + chunk, ROWS):
        pixel = row + tl.arange(0, ROWS)
        here = (pixel < tl.minimum(begin + chunk, pixels))[:, None] & inside[None, :]
        place = base + pixel[:, None] * channels + channel[None, :]
        value = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
        if BIASED:
            value += added[None, :]
        if ADDED:
            value += tl.load(update + place, mask=here, other=0.0).to(tl.float32)
        if ADDED or BIASED:
            rounded = value.to(out.dtype.element_ty)
            tl.store(out + place, rounded, mask=here)
            value = rounded.to(tl.float32)
        away = tl.where(here, value - pivot[None, :], 0.0)
        total += away
        square += away * away
    place = (picture * chunks + part) * channels + channel
    tl.store(sums + place, tl.sum(total, axis=0), mask=inside)
    tl.store(sums + step + place, tl.sum(square, axis=0), mask=inside)
    tl.store(sums + 2 * step + place, pivot, mask=inside)


@triton.jit
def _group_scale_shift_kernel(
    sums, shift, weight, bias, factors, terms,
    channels, pixels, chunk, chunks, groups, step, shift_step, eps,
    SHIFTED: tl.constexpr, CHUNKS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Compute the factors and terms of a group's channels from the sums of all chunks.

    A shift changes only a channel's mean.
    """
    picture, group = tl.program_id(0), tl.program_id(1)
    width = channels // groups
    own = tl.arange(0, WIDTH)
    part = tl.arange(0, CHUNKS)
    channel = group * width + own
    there = (own < width)[None, :] & (part < chunks)[:, None]
    place = (picture * chunks + part)[:, None] * channels + channel[None, :]
    count = tl.where(there, tl.minimum(chunk, pixels - part * chunk)[:, None].to(tl.float32), 0.0)
    total = tl.load(sums + place, mask=there, other=0.0)
    local = tl.load(sums + 2 * step + place, mask=there, other=0.0) + total / tl.where(there, count, 1.0)
    mine = own < width
    moved = tl.zeros([WIDTH], tl.float32)
    if SHIFTED:
        moved = tl.load(shift + picture * shift_step + channel, mask=mine, other=0.0).to(tl.float32)
        local += moved[None, :]
    every = pixels * width * 1.0
    mean = tl.sum(tl.sum(local * count, axis=1), axis=0) / every
    within = tl.load(sums + step + place, mask=there, other=0.0) - total * total / tl.where(there, count, 1.0)
    away = tl.where(there, local - mean, 0.0)
    variance = tl.sum(tl.sum(within + count * away * away, axis=1), axis=0) / every
    scale = 1.0 / tl.sqrt(tl.maximum(variance, 0.0) + eps)
    factor = scale * tl.load(weight + channel, mask=mine, other=0.0).to(tl.float32)
    term = tl.load(bias + channel, mask=mine, other=0.0).to(tl.float32) - mean * factor
    term += factor * moved
    tl.store(factors + picture * channels + channel, factor, mask=mine)
    tl.store(terms + picture * channels + channel, term, mask=mine)


@autotune(
    [({"ROWS": 32, "WIDTH": 64}, 4), ({"ROWS": 64, "WIDTH": 64}, 4), ({"ROWS": 16, "WIDTH": 128}, 4)],
    key=["channels"],
)  # fmt: skip
@triton.jit
def _scale_shift_kernel(
    x, factors, terms, out, channels, pixels, gain,
    SILU: tl.constexpr, CODES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Multiply each channel by its factor and add its term, then SiLU; with CODES, write codes of that gain."""
    # A large picture has more rows than the other axes of a grid allow.
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    picture = tl.program_id(2)
    inside = channel < channels
    here = (pixel < pixels)[:, None] & inside[None, :]
    factor = tl.load(factors + picture * channels + channel, mask=inside, other=0.0)
    term = tl.load(terms + picture * channels + channel, mask=inside, other=0.0)
    place = picture.to(tl.int64) * pixels * channels + pixel[:, None] * channels + channel[None, :]
    value = tl.load(x + place, mask=here, other=0.0).to(tl.float32) * factor[None, :] + term[None, :]
    if SILU:
        value = value * tl.sigmoid(value)
    if CODES:
        value = codes(value, gain)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=here)


def _compute_stats(x: Tensor, update: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return x + update + bias, or x if there is neither, and its statistics: float32 (3, N, chunks, C)."""
    x = x.contiguous(memory_format=torch.channels_last)
    update = None if update is None else update.contiguous(memory_format=torch.channels_last)
    count, channels, height, width = x.shape
    pixels = height * width
    chunk = _chunk_size(pixels)
    sums = _allocate_stats(x)
    changed = update is not None or bias is not None
    out = torch.empty_like(x) if changed else x
    _channel_stats_kernel[lambda meta: (count, sums.shape[2], triton.cdiv(channels, meta["WIDTH"]))](
        x, x if update is None else update, x if bias is None else bias, out, sums,
        channels, pixels, chunk, sums.shape[2], sums.stride(0),
        ADDED=update is not None, BIASED=bias is not None,
    )  # fmt: skip
    return out, sums


def _allocate_stats(x: Tensor) -> Tensor:
    pixels = x.shape[2] * x.shape[3]
    return x.new_empty(3, x.shape[0], -(-pixels // _chunk_size(pixels)), x.shape[1], dtype=torch.float32)


@CustomOp
def add_with_stats(x: Tensor, update: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return x + update (N, C, h, w) + bias (C,), at least one given, and its sums for `group_norm`: one pass."""
    return _compute_stats(x, update, bias)


@add_with_stats.register_fake
def _(x: Tensor, *_: Tensor | None) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, memory_format=torch.channels_last), _allocate_stats(x)


def _empty_norm(x: Tensor, gain: object) -> Tensor:
    dtype = x.dtype if gain is None else FLOAT8
    return torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)


@CustomOp
def group_norm(
    x: Tensor,
    sums: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    shift: Tensor | None,
    gain: float | None,
) -> Tensor:
    """Return the group norm of x (N, C, h, w) + shift (N or 1, C), and SiLU; channels-last in memory, in and out.

    With a gain the result is codes: see `fp8.quantize_fp8`.

    There are three launches: the sums of each channel over chunks of pixels, unless `add_with_stats` gave them;
    their combination (Chan et al., 1983); and the scaling. The picture is read twice and written once, or read once
    with given sums.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    if sums is None:
        _, sums = _compute_stats(x, None, None)
    count, channels, height, width = x.shape
    pixels = height * width
    chunk, chunks = _chunk_size(pixels), sums.shape[2]
    factors, terms = x.new_empty(2, count, channels, dtype=torch.float32)
    _group_scale_shift_kernel[(count, groups)](
        sums, x if shift is None else shift.contiguous(), weight, bias, factors, terms,
        channels, pixels, chunk, chunks, groups, sums.stride(0),
        channels if shift is not None and len(shift) > 1 else 0, eps, SHIFTED=shift is not None,
        CHUNKS=triton.next_power_of_2(chunks), WIDTH=triton.next_power_of_2(channels // groups),
    )  # fmt: skip
    out = _empty_norm(x, gain)
    _scale_shift_kernel[
        lambda meta: (triton.cdiv(pixels, meta["ROWS"]), triton.cdiv(channels, meta["WIDTH"]), count)
    ](x, factors, terms, out, channels, pixels, gain or 1.0, SILU=silu, CODES=gain is not None)
    return out


@group_norm.register_fake
def _(x: Tensor, *rest: Tensor | float | None) -> Tensor:
    return _empty_norm(x, rest[-1])
