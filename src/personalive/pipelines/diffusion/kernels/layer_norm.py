"""Layer norm, with the additions to its input and to its result, as a Triton kernel.

Statistics are float32; the variance is computed from differences from the mean.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from personalive.pipelines.diffusion.kernels.autotune import autotune
from personalive.pipelines.diffusion.kernels.custom_op import CustomOp
from personalive.pipelines.diffusion.kernels.fp8 import FLOAT8
from personalive.pipelines.diffusion.kernels.triton_utils import codes


@autotune(
    [({"ROWS": 4}, 4), ({"ROWS": 1}, 2), ({"ROWS": 8}, 8)],
    key=["channels"],
)
@triton.jit
def _layer_norm_kernel(
    tokens, update, shift, code, extra, weight, bias, total, normed,
    rows, channels, shift_rows, code_rows, code_count, eps, gain,
    UPDATED: tl.constexpr, SHIFTED: tl.constexpr, CODED: tl.constexpr, EXTRA: tl.constexpr,
    CODES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, WIDTH)
    inside = channel < channels
    here = (row < rows)[:, None] & inside[None, :]
    place = row[:, None].to(tl.int64) * channels + channel[None, :]
    value = tl.load(tokens + place, mask=here, other=0.0).to(tl.float32)
    if UPDATED:
        value += tl.load(update + place, mask=here, other=0.0).to(tl.float32)
    if SHIFTED:
        beside = (row // shift_rows)[:, None] * channels + channel[None, :]
        value += tl.load(shift + beside, mask=here, other=0.0).to(tl.float32)
    if EXTRA:
        more = tl.load(extra + channel, mask=inside, other=0.0).to(tl.float32)
        tl.store(total + place, (value + more[None, :]).to(total.dtype.element_ty), mask=here)
    elif UPDATED or SHIFTED:
        tl.store(total + place, value.to(total.dtype.element_ty), mask=here)
    mean = tl.sum(value, axis=1) / channels
    away = tl.where(here, value - mean[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(away * away, axis=1) / channels + eps)
    factor = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32)
    term = tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    out = away * scale[:, None] * factor[None, :] + term[None, :]
    if CODED:
        beside = ((row // code_rows) % code_count)[:, None] * channels + channel[None, :]
        out += tl.load(code + beside, mask=here, other=0.0).to(tl.float32)
    if CODES:
        out = codes(out, gain)
    tl.store(normed + place, out.to(normed.dtype.element_ty), mask=here)


def _empty_outputs(tokens: Tensor, *, added: bool, gain: float | None) -> tuple[Tensor, Tensor]:
    dtype = tokens.dtype if gain is None else FLOAT8
    return tokens.new_empty(tokens.shape if added else 0), tokens.new_empty(tokens.shape, dtype=dtype)


@CustomOp
def layer_norm(
    tokens: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    update: Tensor | None,
    shift: Tensor | None,
    code: Tensor | None,
    extra: Tensor | None,
    gain: float | None,
) -> tuple[Tensor, Tensor]:
    """Return tokens (B, T, C) + update (B, T, C) + shift (S, 1, C), and its layer norm plus code (F, C): one pass.

    extra (C,) is added to the first result only, which is empty where nothing is added. With a gain the second one
    is codes: see `fp8.quantize_fp8`.
    """
    tokens = tokens.contiguous()
    channels = tokens.shape[-1]
    rows = tokens.numel() // channels
    added = update is not None or shift is not None or extra is not None
    total, normed = _empty_outputs(tokens, added=added, gain=gain)
    _layer_norm_kernel[lambda meta: (triton.cdiv(rows, meta["ROWS"]),)](
        tokens,
        tokens if update is None else update.contiguous(),
        tokens if shift is None else shift.contiguous(),
        tokens if code is None else code.contiguous(),
        weight if extra is None else extra.contiguous(),
        weight, bias, total if added else tokens, normed,
        rows, channels, rows if shift is None else rows // len(shift),
        rows // len(tokens), 1 if code is None else len(code), eps, gain or 1.0,
        UPDATED=update is not None, SHIFTED=shift is not None, CODED=code is not None,
        EXTRA=extra is not None, CODES=gain is not None,
        WIDTH=triton.next_power_of_2(channels),
    )  # fmt: skip
    return total, normed


@layer_norm.register_fake
def _(tokens: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    _, _, _, update, shift, _, extra, gain = rest
    added = update is not None or shift is not None or extra is not None
    return _empty_outputs(tokens, added=added, gain=gain)
