"""Softmax attention in one head that is wider than libraries' fast kernels allow: two products and a pass between.

All scores are in memory at once, which takes time, but a library's kernel for any width takes longer.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from personalive.pipelines.diffusion.kernels.custom_op import CustomOp

_MIN_CHANNELS = 257
_MAX_KEYS = 1 << 13
"""The most keys of a row, which one program holds. As many tokens take 0.4 GB a picture, twice as many 1.6."""


@triton.jit
def _exp_scores_kernel(scores, out, sums, length, scale, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, WIDTH)
    inside = place < length
    score = tl.load(scores + row * length + place, mask=inside, other=float("-inf")) * scale
    share = tl.exp(score - tl.max(score, axis=0))
    # The sums are of the rounded values that are multiplied, so that rounding errors cancel.
    share = share.to(out.dtype.element_ty)
    tl.store(out + row * length + place, share, mask=inside)
    tl.store(sums + row, tl.sum(share.to(tl.float32), axis=0))


@CustomOp
def exp_scores(scores: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return exp(scale · (x - row maximum)) of scores float32 (B, T, S), in `dtype`, and their sums (B, T, 1)."""
    scores = scores.contiguous()
    count, rows, length = scores.shape
    out = torch.empty(scores.shape, dtype=dtype, device=scores.device)
    sums = scores.new_empty(count, rows, 1)
    _exp_scores_kernel[(count * rows,)](
        scores, out, sums, length, scale, WIDTH=triton.next_power_of_2(length), num_warps=8
    )
    return out, sums


@exp_scores.register_fake
def _(scores: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    del scale
    return scores.new_empty(scores.shape, dtype=dtype), scores.new_empty(*scores.shape[:2], 1)


def is_supported(query: Tensor, key: Tensor) -> bool:
    """Return whether this is faster for queries (B, T, C) and keys (B, S, C) than a library's kernel."""
    return (
        query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[2] >= _MIN_CHANNELS
        and key.shape[1] <= _MAX_KEYS
    )


def single_head_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend from queries (B, T, C) to keys and values (B, S, C) → (B, T, C); scores and sums are float32."""
    shares, sums = exp_scores(_matmul_float32(query, key.mT), query.shape[2] ** -0.5, query.dtype)
    return (_matmul_float32(shares, value) / sums).to(query.dtype)


def _matmul_float32(left: Tensor, right: Tensor) -> Tensor:
    """Return the float32 matrix product of two 16-bit tensors."""
    if left.is_cuda:
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left.float(), right.float())
