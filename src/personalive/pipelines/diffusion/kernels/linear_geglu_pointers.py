"""A linear and its GEGLU in one Triton kernel, for GPUs without a tensor memory accelerator.

It computes the same as `linear_geglu`, but tiles are loaded by ordinary loads: each thread loads 16 bytes at once,
which from capability 8.0 on are copied to shared memory asynchronously while the tiles before are multiplied. For
that no load of the inner loop is masked: rows beyond the last are read as the last, and their results are not
written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from personalive.pipelines.diffusion.kernels.autotune import LaunchConfig, autotune
from personalive.pipelines.diffusion.kernels.custom_op import CustomOp
from personalive.pipelines.diffusion.kernels.fp8 import FLOAT8
from personalive.pipelines.diffusion.kernels.linear_geglu import empty_output
from personalive.pipelines.diffusion.kernels.triton_utils import codes, gelu

_INPUT_MULTIPLE = 64
"""The number of inputs is a multiple of this, so that tiles of the inner loop are whole."""
_ALIGNMENT = 16
"""Bytes of which a row of outputs must be a multiple."""
_GROUP_SIZE = 8
"""Tiles of rows that are computed in sequence for each tile of outputs, so that their operands are cached."""

LAUNCH_CONFIGS: tuple[LaunchConfig, ...] = (
    ({"ROWS": 64, "OUTPUTS": 64, "INPUTS": 32}, 4, 4),
    ({"ROWS": 128, "OUTPUTS": 64, "INPUTS": 32}, 4, 4),
    ({"ROWS": 128, "OUTPUTS": 64, "INPUTS": 64}, 8, 3),
    ({"ROWS": 128, "OUTPUTS": 128, "INPUTS": 32}, 8, 4),
    ({"ROWS": 128, "OUTPUTS": 128, "INPUTS": 64}, 8, 3),
)
"""All fit the 99 KB of capability 8.6, the least of the families that use the kernel."""


def shared_memory_nbytes(sizes: dict[str, int], stages: int) -> int:
    """Return the bytes of shared memory that a launch needs.

    They hold the 16-bit operands, of values and gates, of all stages but the one in registers.
    """
    return 2 * (stages - 1) * (sizes["ROWS"] + 2 * sizes["OUTPUTS"]) * sizes["INPUTS"]


@autotune(LAUNCH_CONFIGS, key=["size", "outputs", "WIDTH"])
@triton.jit
def _linear_geglu_pointers_kernel(
    tokens, weight, bias, factors, out, rows, outputs, size, gain,
    CODES: tl.constexpr, WIDTH: tl.constexpr, TOGETHER: tl.constexpr,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    down, across = tl.cdiv(rows, ROWS), tl.cdiv(outputs, OUTPUTS)
    program = tl.program_id(0)
    above = (program // (TOGETHER * across)) * TOGETHER
    together = tl.minimum(down - above, TOGETHER)
    row = (above + program % (TOGETHER * across) % together) * ROWS + tl.arange(0, ROWS)
    first = (program % (TOGETHER * across) // together) * OUTPUTS
    place = 2 * first + tl.arange(0, 2 * OUTPUTS)
    along = tl.arange(0, INPUTS)
    from_tokens = tokens + tl.minimum(row, rows - 1)[:, None].to(tl.int64) * WIDTH + along[None, :]
    from_weight = weight + tl.minimum(place, 2 * outputs - 1)[None, :].to(tl.int64) * WIDTH + along[:, None]
    products = tl.zeros([ROWS, 2 * OUTPUTS], tl.float32)
    for _ in range(0, WIDTH, INPUTS):
        products = tl.dot(tl.load(from_tokens), tl.load(from_weight), products)
        from_tokens += INPUTS
        from_weight += INPUTS
    if CODES:
        products *= tl.load(factors + place, mask=place < 2 * outputs, other=0.0)[None, :]
    term = tl.load(bias + place, mask=place < 2 * outputs, other=0.0).to(tl.float32)
    value, gate = tl.split(tl.reshape(products + term[None, :], [ROWS, OUTPUTS, 2]))
    column = first + tl.arange(0, OUTPUTS)
    written = row[:, None].to(tl.int64) * outputs + column[None, :]
    here = (row < rows)[:, None] & (column < outputs)[None, :]
    gated = value * gelu(gate)
    if CODES:
        gated = codes(gated, gain)
    tl.store(out + written, gated.to(out.dtype.element_ty), mask=here)


def is_supported(tokens: Tensor, weight: Tensor) -> bool:
    """Return whether the kernel takes tokens (…, K) and a weight (2·C, K).

    They must be 16-bit floats or codes, K a multiple of 64, and C of 16 bytes.
    """
    return (
        tokens.dtype in (torch.float16, torch.bfloat16, FLOAT8)
        and weight.shape[1] % _INPUT_MULTIPLE == 0
        and weight.shape[0] % (2 * _ALIGNMENT // tokens.element_size()) == 0
    )


@CustomOp
def linear_geglu_pointers(
    tokens: Tensor, weight: Tensor, bias: Tensor, factors: Tensor | None = None, gain: float = 1.0
) -> Tensor:
    """Compute `linear_geglu` by ordinary loads."""
    given, weight = tokens.contiguous().flatten(0, -2), weight.contiguous()
    out = empty_output(given, weight)
    (rows, outputs), width = out.shape, given.shape[1]
    _linear_geglu_pointers_kernel[
        lambda meta: (triton.cdiv(rows, meta["ROWS"]) * triton.cdiv(outputs, meta["OUTPUTS"]),)
    ](
        given, weight, bias, bias if factors is None else factors, out, rows, outputs, rows.bit_length(), gain,
        CODES=factors is not None, WIDTH=width, TOGETHER=_GROUP_SIZE,
    )  # fmt: skip
    return out.view(*tokens.shape[:-1], outputs)


linear_geglu_pointers.register_fake(empty_output)
