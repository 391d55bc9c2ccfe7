"""GEGLU, attention along time, and concatenation of tokens, as Triton kernels."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from personalive.pipelines.diffusion.kernels.autotune import autotune
from personalive.pipelines.diffusion.kernels.custom_op import CustomOp
from personalive.pipelines.diffusion.kernels.triton_utils import gelu

_MIN_TILE_SIDE = 16
"""The smallest side of a matrix that Triton multiplies."""
MAX_FRAMES = 32
"""The most frames whose attention one program holds."""
_MAX_QUERY_BYTES = {torch.float16: 1 << 13, torch.bfloat16: 1 << 13, torch.float32: 1 << 12}
"""The most bytes of a pixel's queries in a head, padded. With more, some launch spills or exceeds 99 KB a block."""


@autotune(
    [({"ROWS": 8, "WIDTH": 128}, 4), ({"ROWS": 4, "WIDTH": 256}, 4), ({"ROWS": 16, "WIDTH": 128}, 8)],
    key=["channels"],
)  # fmt: skip
@triton.jit
def _geglu_kernel(projected, out, rows, channels, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    here = (row < rows)[:, None] & (channel < channels)[None, :]
    read = row[:, None].to(tl.int64) * (2 * channels) + channel[None, :]
    value = tl.load(projected + read, mask=here, other=0.0).to(tl.float32)
    gate = tl.load(projected + read + channels, mask=here, other=0.0).to(tl.float32)
    written = row[:, None].to(tl.int64) * channels + channel[None, :]
    tl.store(out + written, (value * gelu(gate)).to(out.dtype.element_ty), mask=here)


def _empty_geglu(projected: Tensor) -> Tensor:
    return projected.new_empty(*projected.shape[:-1], projected.shape[-1] // 2)


@CustomOp
def geglu(projected: Tensor) -> Tensor:
    """Return GEGLU (Shazeer, 2020, https://arxiv.org/abs/2002.05202) with exact GELU: (…, 2·C) → (…, C)."""
    projected = projected.contiguous()
    channels = projected.shape[-1] // 2
    rows = projected.numel() // (2 * channels)
    out = _empty_geglu(projected)
    _geglu_kernel[lambda meta: (triton.cdiv(rows, meta["ROWS"]), triton.cdiv(channels, meta["WIDTH"]))](
        projected, out, rows, channels
    )
    return out


geglu.register_fake(_empty_geglu)


@autotune(
    [({"PIXELS": 4}, 4), ({"PIXELS": 1}, 1), ({"PIXELS": 4}, 1), ({"PIXELS": 8}, 2)],
    key=["length", "WIDTH"],
)
@triton.jit
def _temporal_attention_kernel(
    query, key, value, out, frames, length, width, session_step, frame_step, pixel_step, channels, scale,
    FRAMES: tl.constexpr, WIDTH: tl.constexpr, PIXELS: tl.constexpr,
):  # fmt: skip
    """Attend for some pixels of one head: all frames of a pixel are one small matrix, so nothing is read twice."""
    head, session = tl.program_id(1), tl.program_id(2)
    frame, channel = tl.arange(0, FRAMES), tl.arange(0, WIDTH)
    inside = (frame < frames)[:, None] & (channel < width)[None, :]
    for step in range(PIXELS):
        pixel = tl.program_id(0) * PIXELS + step
        here = inside & (pixel + tl.zeros([FRAMES], tl.int32) < length)[:, None]
        read = (
            session.to(tl.int64) * session_step
            + frame[:, None].to(tl.int64) * frame_step
            + pixel.to(tl.int64) * pixel_step
            + head * width
            + channel[None, :]
        )
        q = tl.load(query + read, mask=here, other=0.0)
        k = tl.load(key + read, mask=here, other=0.0)
        v = tl.load(value + read, mask=here, other=0.0)
        score = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        score = tl.where((frame < frames)[None, :], score, float("-inf"))
        share = tl.exp(score - tl.max(score, axis=1)[:, None])
        share = share / tl.sum(share, axis=1)[:, None]
        result = tl.dot(share.to(v.dtype), v, input_precision="ieee")
        written = (
            ((session * frames + frame[:, None]).to(tl.int64) * length + pixel) * channels
            + head * width
            + channel[None, :]
        )
        tl.store(out + written, result.to(out.dtype.element_ty), mask=here)


@CustomOp
def temporal_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Return the attention of each pixel to itself in the other frames: all (S, F, L, C), F ≤ 32; contiguous out.

    The three may be slices of one tensor, if they have the same strides and channels are adjacent.
    """
    if query.stride(-1) != 1 or not query.stride() == key.stride() == value.stride():
        query, key, value = (tokens.contiguous() for tokens in (query, key, value))
    sessions, frames, length, channels = query.shape
    width = channels // heads
    out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    _temporal_attention_kernel[lambda meta: (triton.cdiv(length, meta["PIXELS"]), heads, sessions)](
        query, key, value, out, frames, length, width,
        query.stride(0), query.stride(1), query.stride(2), channels, width**-0.5,
        FRAMES=_tile_side(frames), WIDTH=_tile_side(width),
    )  # fmt: skip
    return out


def _tile_side(size: int) -> int:
    """Return the side of a tile that holds `size`."""
    side: int = max(_MIN_TILE_SIDE, triton.next_power_of_2(size))
    return side


def is_temporal_attention_supported(query: Tensor, heads: int) -> bool:
    """Return whether `temporal_attention` takes such queries (S, F, L, C): few frames in wide heads, no float64."""
    frames, width = query.shape[1], query.shape[3] // heads
    nbytes = _tile_side(frames) * _tile_side(width) * query.element_size()
    return frames <= MAX_FRAMES and nbytes <= _MAX_QUERY_BYTES.get(query.dtype, 0)


temporal_attention.register_fake(lambda query, *_: query.new_empty(query.shape))


@autotune([({"ROWS": 16, "WIDTH": 128}, 4), ({"ROWS": 32, "WIDTH": 64}, 4), ({"ROWS": 8, "WIDTH": 256}, 4)],
    key=["channels"])  # fmt: skip
@triton.jit
def _concat_kv_kernel(
    own, shared, out, length, more, channels, frames, own_step, own_row,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(0)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(2) * WIDTH + tl.arange(0, WIDTH)
    inside = (channel < channels)[None, :]
    mine = (row < length)[:, None] & inside
    theirs = ((row >= length) & (row < length + more))[:, None] & inside
    read = frame.to(tl.int64) * own_step + row[:, None].to(tl.int64) * own_row + channel[None, :]
    beside = ((frame // frames).to(tl.int64) * more + (row - length)[:, None]) * channels + channel[None, :]
    value = tl.where(
        mine, tl.load(own + read, mask=mine, other=0.0), tl.load(shared + beside, mask=theirs, other=0.0)
    )
    written = (frame.to(tl.int64) * (length + more) + row[:, None]) * channels + channel[None, :]
    tl.store(out + written, value, mask=mine | theirs)


def _empty_kv(own: Tensor, shared: Tensor) -> Tensor:
    return own.new_empty(own.shape[0], own.shape[1] + shared.shape[1], own.shape[2])


@CustomOp
def concat_kv(own: Tensor, shared: Tensor) -> Tensor:
    """Concatenate own (S·F, L, C) and shared (S, M, C) to (S·F, L + M, C): a session's shared tokens come last."""
    own = own if own.stride(-1) == 1 else own.contiguous()
    shared = shared.contiguous()
    count, length, channels = own.shape
    more = shared.shape[1]
    out = _empty_kv(own, shared)
    _concat_kv_kernel[
        lambda meta: (count, triton.cdiv(length + more, meta["ROWS"]), triton.cdiv(channels, meta["WIDTH"]))
    ](own, shared, out, length, more, channels, count // len(shared), own.stride(0), own.stride(1))
    return out


concat_kv.register_fake(_empty_kv)
