"""Linears in 8-bit floats (Micikevicius et al., 2022, https://arxiv.org/abs/2209.05433), e4m3.

A weight has one scale per output channel, fixed when it is loaded; an input has one per token, from its largest
value. Products are summed in float32 and scaled back by both.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from personalive.errors import InputError
from personalive.pipelines.personalive.kernels.operations import PLAIN, Fusable
from personalive.pipelines.personalive.models import Models

_MULTIPLE = 16
"""What both sides of a product in 8 bits divide by."""
_RARE = ("time_emb", "attn2.")
"""In the names of what runs once, not at every step."""
_LEAST_WIDTH = 320
"""Narrower linears gain nothing: quantizing their input costs more than the product saves."""


class Float8Linear(Fusable):
    """A linear whose product is made of 8-bit numbers; its result has the input's type."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = PLAIN.quantized(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.T.contiguous())
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        rows, scale = self.operations.quantized(x.flatten(0, -2))
        # The only type that PyTorch gives such products in on every GPU that has them; the bias must be of it too.
        product: Tensor = torch._scaled_mm(
            rows,
            self.weight.T,
            scale_a=scale,
            scale_b=self.scale,
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        ).to(x.dtype)
        return product.view(*x.shape[:-1], -1)


def quantize(models: Models) -> None:
    """Quantize the denoising UNet's large linears in place; those that are so already stay.

    Raises `InputError` where the device cannot multiply 8-bit floats.
    """
    check(models.device)
    for module, name, linear in list(_linears(models)):
        setattr(module, name, Float8Linear(linear))


def check(device: torch.device) -> None:
    """Raise `InputError` where the device cannot multiply 8-bit floats with a scale per row."""
    sample = torch.ones(_MULTIPLE, _MULTIPLE, device=device)
    rows, scale = PLAIN.quantized(sample)
    try:
        torch._scaled_mm(rows, rows.T, scale_a=scale, scale_b=scale.T.contiguous(), out_dtype=torch.bfloat16)
    except (RuntimeError, NotImplementedError, ValueError):
        raise InputError(
            f"dtype=float8 needs a GPU that multiplies 8-bit floats (compute capability 8.9 or 9.0 and later), "
            f"and {device} does not: take float16, bfloat16 or auto."
        ) from None


def _linears(models: Models) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """The linears to quantize and where they are: not those whose weight is used otherwise than by a call."""
    for path, module in models.denoising_unet.named_modules():
        for name, child in module.named_children():
            if not isinstance(child, nn.Linear) or any(part in f"{path}.{name}" for part in _RARE):
                continue
            wide = min(child.in_features, child.out_features) >= _LEAST_WIDTH
            if wide and not (child.in_features % _MULTIPLE or child.out_features % _MULTIPLE):
                yield module, name, child
