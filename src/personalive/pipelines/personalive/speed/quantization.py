"""Feed-forwards in 8-bit floats (Micikevicius et al., 2022, https://arxiv.org/abs/2209.05433), e4m3.

A weight has one scale per output channel, fixed when it is loaded; an input has one per token, from its largest
value. Products are summed in float32 and scaled back by both.

Only feed-forwards: their linears are the large ones. To quantize the input of a smaller one costs what its product
saves (65,536 tokens, 320 → 320 channels, on an H100: 0.048 ms in float16, 0.036 + 0.023 so), and so it is with
narrower feed-forwards (of 320 channels 0.38 ms in float16, 0.52 so; of 640 0.29 and 0.29; of 1,280 0.26 and 0.21).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from personalive.errors import InputError
from personalive.pipelines.personalive.kernels import families
from personalive.pipelines.personalive.kernels.failures import out_of_memory
from personalive.pipelines.personalive.kernels.operations import PLAIN, Fusable
from personalive.pipelines.personalive.models import Models
from personalive.pipelines.personalive.networks.layers import FeedForward, GatedProjection

_MULTIPLE = 16
"""What both sides of a product in 8 bits divide by."""
_LEAST_WIDTH = 1280
"""Narrower ones gain nothing."""


class Float8Linear(nn.Module):
    """A linear whose product is made of 8-bit numbers."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = PLAIN.quantized(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.T.contiguous())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().bfloat16())

    def forward(self, codes: Tensor, scale: Tensor) -> Tensor:
        """Rows as `Operations.quantized` makes them, (N, in) and (N, 1) → bfloat16 (N, out).

        bfloat16 is what PyTorch gives such products in on every GPU that has them; the bias must be of it too.
        """
        product: Tensor = torch._scaled_mm(
            codes,
            self.weight.T,
            scale_a=scale,
            scale_b=self.scale,
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return product


class Float8FeedForward(Fusable):
    """GEGLU to four times the width, and back; the result is bfloat16, to be added to something finer."""

    bias_beforehand = None
    """See `FeedForward`: the product has its own."""

    def __init__(self, plain: FeedForward) -> None:
        super().__init__()
        inward, outward = cast("GatedProjection", plain.net[0]).apart(), cast("nn.Linear", plain.net[-1])
        self.inward, self.outward = Float8Linear(inward), Float8Linear(outward)

    def forward(self, tokens: Tensor) -> Tensor:
        """(…, width) → bfloat16 (…, width)."""
        projected = self.inward(*self.operations.quantized(tokens.flatten(0, -2)))
        out: Tensor = self.outward(*self.operations.gated_quantized(projected))
        return out.view(tokens.shape)

    def onto(self, total: Tensor, tokens: Tensor) -> Tensor:
        """total + what it makes of the tokens, both (B, T, width)."""
        return self.operations.plus(total, self(tokens))


def quantize(models: Models) -> None:
    """Quantize the denoising UNet's large feed-forwards in place; those that are so already stay.

    Raises `InputError` where the device cannot multiply 8-bit floats.
    """
    check(models.device)
    for module, name, plain in list(_feed_forwards(models.denoising_unet)):
        setattr(module, name, Float8FeedForward(plain))


def check(device: torch.device) -> None:
    """Raise `InputError` where the device cannot multiply 8-bit floats with a scale per row.

    By its capability, since a library may imitate what a GPU lacks, and by a trial, since it may lack what one has.
    """
    refusal = InputError(
        f"dtype=float8 needs a GPU that multiplies 8-bit floats (compute capability 8.9 or 9.0 and later), "
        f"and {device} does not: take float16, bfloat16 or auto."
    )
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < families.FLOAT8:
        raise refusal
    sample = torch.ones(_MULTIPLE, _MULTIPLE, device=device)
    rows, scale = PLAIN.quantized(sample)
    try:
        torch._scaled_mm(rows, rows.T, scale_a=scale, scale_b=scale.T.contiguous(), out_dtype=torch.bfloat16)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        if out_of_memory(error):
            raise
        raise refusal from None


def _feed_forwards(network: nn.Module) -> Iterator[tuple[nn.Module, str, FeedForward]]:
    """Those to quantize, and where they are."""
    for module in network.modules():
        for name, child in module.named_children():
            if (
                isinstance(child, FeedForward)
                and child.width >= _LEAST_WIDTH
                and child.width % _MULTIPLE == 0
            ):
                yield module, name, child
