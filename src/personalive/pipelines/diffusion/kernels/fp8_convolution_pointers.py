"""A 3×3 convolution of 8-bit floats for GPUs without a tensor memory accelerator.

It computes the same as `fp8_conv`, but tiles are loaded by ordinary loads of 16 bytes a thread, which are copied to
shared memory asynchronously while the tiles before are multiplied. In the inner loop only loads outside of a
picture are masked, where the copy writes zeros: pixels beyond the last are read as the last, and their results are
not written.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from personalive.pipelines.diffusion.kernels import fp8_convolution
from personalive.pipelines.diffusion.kernels.autotune import LaunchConfig, autotune
from personalive.pipelines.diffusion.kernels.custom_op import CustomOp

_INPUTS = 64
"""The number of inputs is a multiple of this, so that tiles of the inner loop are whole."""
_TOGETHER = 8
"""Tiles of pixels that are computed in sequence for each tile of outputs, so that their operands are cached."""

LAUNCHES: tuple[LaunchConfig, ...] = (
    ({"PIXELS": 64, "OUTPUTS": 64, "INPUTS": 64}, 4, 4),
    ({"PIXELS": 128, "OUTPUTS": 64, "INPUTS": 64}, 4, 4),
    ({"PIXELS": 128, "OUTPUTS": 128, "INPUTS": 64}, 8, 3),
    ({"PIXELS": 128, "OUTPUTS": 128, "INPUTS": 64}, 8, 4),
    ({"PIXELS": 128, "OUTPUTS": 256, "INPUTS": 64}, 8, 3),
)
"""All fit the 99 KB of capability 8.9, the least of the families that use the kernel."""


def nbytes(sizes: dict[str, int], stages: int) -> int:
    """Return the bytes of shared memory that a launch needs: operands of all stages."""
    return stages * (sizes["PIXELS"] + sizes["OUTPUTS"]) * sizes["INPUTS"]


@autotune(LAUNCHES, key=["size", "outputs", "channels"])
@triton.jit(do_not_specialize=["pixels", "height", "width", "size"])
def _fp8_conv_pointer_kernel(
    x, weight, factors, out, pixels, height, width, channels, outputs, size,
    TAPS: tl.constexpr, TOGETHER: tl.constexpr,
    PIXELS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    parts = channels // INPUTS
    down, across = tl.cdiv(pixels, PIXELS), tl.cdiv(outputs, OUTPUTS)
    program = tl.program_id(0)
    above = (program // (TOGETHER * across)) * TOGETHER
    together = tl.minimum(down - above, TOGETHER)
    pixel = (above + program % (TOGETHER * across) % together) * PIXELS + tl.arange(0, PIXELS)
    channel = (program % (TOGETHER * across) // together) * OUTPUTS + tl.arange(0, OUTPUTS)
    read, taken = tl.minimum(pixel, pixels - 1), tl.minimum(channel, outputs - 1)
    row, column = read // width % height, read % width
    along = tl.arange(0, INPUTS)
    from_x = x + read[:, None].to(tl.int64) * channels + along[None, :]
    from_weight = weight + taken[None, :].to(tl.int64) * channels + along[:, None]
    products = tl.zeros([PIXELS, OUTPUTS], tl.float32)
    for step in range(0, TAPS * parts):
        tap = step // parts
        begin = (step % parts) * INPUTS
        above_it, before_it = tap // 3 - 1, tap % 3 - 1
        line, place = row + above_it, column + before_it
        inside = (line >= 0) & (line < height) & (place >= 0) & (place < width)
        moved = (above_it * width + before_it) * channels + begin
        given = tl.load(from_x + moved, mask=inside[:, None], other=0.0)
        products = tl.dot(given, tl.load(from_weight + tap * outputs * channels + begin), products)
    result = products * tl.load(factors + taken)[None, :]
    written = pixel[:, None].to(tl.int64) * outputs + channel[None, :]
    here = (pixel < pixels)[:, None] & (channel < outputs)[None, :]
    tl.store(out + written, result.to(out.dtype.element_ty), mask=here)


def is_supported(codes: Tensor, weight: Tensor) -> bool:
    """Return whether the kernel takes codes of K channels and a weight (9, C, K): K a multiple of 64, C of 16."""
    return fp8_convolution.is_supported(codes, weight) and weight.shape[2] % _INPUTS == 0


@CustomOp
def fp8_conv_pointers(codes: Tensor, weight: Tensor, factors: Tensor, dtype: torch.dtype) -> Tensor:
    """See `fp8_conv`."""
    codes = codes.contiguous(memory_format=torch.channels_last)
    out = fp8_convolution.empty_output(codes, weight, factors, dtype)
    count, channels, height, width = codes.shape
    pixels, outputs = count * height * width, weight.shape[1]
    _fp8_conv_pointer_kernel[
        lambda meta: (triton.cdiv(pixels, meta["PIXELS"]) * triton.cdiv(outputs, meta["OUTPUTS"]),)
    ](
        codes, weight.contiguous(), factors, out,
        pixels, height, width, channels, outputs, pixels.bit_length(),
        TAPS=fp8_convolution.TAPS, TOGETHER=_TOGETHER,
    )  # fmt: skip
    return out


fp8_conv_pointers.register_fake(fp8_convolution.empty_output)
