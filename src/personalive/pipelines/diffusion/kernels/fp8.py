"""8-bit floats (e4m3: Micikevicius et al., 2022, https://arxiv.org/abs/2209.05433), and layers that take them.

A value becomes a *code*: the value times its layer's gain, rounded to e4m3. As e4m3 is a floating-point type, its
relative error is the same from 2^-6 to 448, nearly 15 powers of two. So where the magnitude of a layer's input is
known, one gain is as good as one per row, and nothing has to be measured, neither in advance nor at run time. For a
norm's output it follows from the norm's weights. Layers are quantized together with the norm before them, which
writes codes directly: no pass over memory is added, and half as much is written and read. Gains are powers of two,
so that they change only exponents.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
_TINIEST = 1e-12
"""The least scale of weights, so that zeros stay zeros."""
MULTIPLE = 16
"""The sides of a matrix product of codes are multiples of this, so that rows are aligned to 16 bytes."""


def quantize_fp8(values: Tensor, gain: float) -> Tensor:
    """Quantize values times the gain to e4m3, clamped to ± 448, since not every conversion saturates."""
    return (values.float() * gain).clamp(-LARGEST, LARGEST).to(FLOAT8)


def power_of_two_gain(size: Tensor, wanted: float) -> float:
    """Return the power of two that scales a root mean square `size`, float (), to about the wanted one."""
    found = 1.0 if size.is_meta else float(size)
    if not 0 < found < math.inf:
        return 1.0
    return float(2.0 ** round(math.log2(wanted / found)))


def norm_output_rms(norm: nn.GroupNorm | nn.LayerNorm, more: float = 0.0) -> Tensor:
    """Return the root mean square of a norm's output plus a term of mean square `more`: float32 ()."""
    return (norm.weight.float().square() + norm.bias.float().square() + more).mean().sqrt()


def geglu_output_rms(linear: nn.Linear, norm: nn.LayerNorm) -> Tensor:
    """Estimate the root mean square of the GEGLU of an interleaved linear after a norm: float32 ()."""
    weight = linear.weight.float()
    mean = weight @ norm.bias.float() + linear.bias.float()
    size = (weight.square() @ norm.weight.float().square() + mean.square()).sqrt()
    return (size[0::2] * size[1::2]).square().mean().sqrt() / 2


class Float8GroupNorm(nn.GroupNorm):
    """A group norm whose output is codes."""

    def __init__(self, norm: nn.GroupNorm, gain: float) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, device="meta")
        self.weight, self.bias, self.gain = norm.weight, norm.bias, gain


class Float8LayerNorm(nn.LayerNorm):
    """A layer norm whose output is codes."""

    def __init__(self, norm: nn.LayerNorm, gain: float) -> None:
        super().__init__(norm.normalized_shape, norm.eps, device="meta")
        self.weight, self.bias, self.gain = norm.weight, norm.bias, gain


def output_gain(norm: nn.Module) -> float | None:
    """Return the gain of the codes that a norm outputs, or None if it outputs values."""
    return norm.gain if isinstance(norm, Float8GroupNorm | Float8LayerNorm) else None


class Float8Convolution(nn.Module):
    """A 3×3 convolution of codes, stride and padding 1: `weight` (9, out, in) are codes too.

    A result is the product of both times the `factors` (out,), float32, of its output channel.
    """

    weight: Tensor
    factors: Tensor

    def __init__(self, layer: nn.Conv2d, gain: float) -> None:
        super().__init__()
        exact = layer.weight.detach().float()
        scale = (exact.abs().amax(dim=(1, 2, 3)) / LARGEST).clamp(min=_TINIEST)
        codes = quantize_fp8(exact / scale[:, None, None, None], 1.0)
        self.register_buffer("weight", codes.permute(2, 3, 0, 1).flatten(0, 1).contiguous())
        self.register_buffer("factors", scale / gain)
        self.bias = layer.bias
        self.gain, self.dtype = gain, layer.weight.dtype

    def dequantized_weight(self) -> Tensor:
        """Return the values of its weight, (out, in, 3, 3)."""
        exact: Tensor = self.weight.float() * (self.factors * self.gain)[:, None]
        values: Tensor = exact.unflatten(0, (3, 3)).permute(2, 3, 0, 1)
        return values.to(self.dtype)

    def forward(self, codes: Tensor) -> Tensor:
        """Map codes (N, in, h, w) to values (N, out, h, w), by dequantizing both operands."""
        return F.conv2d(codes.to(self.dtype) / self.gain, self.dequantized_weight(), self.bias, padding=1)


class Float8Linear(nn.Module):
    """A linear of codes: `weight` (out, in) are codes too, with one scale.

    A result is the product of both times the `factor`, float32 ().
    """

    weight: Tensor
    factor: Tensor
    one: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, gain: float) -> None:
        super().__init__()
        exact = weight.detach().float()
        scale = (exact.abs().amax() / LARGEST).clamp(min=_TINIEST)
        self.register_buffer("weight", quantize_fp8(exact / scale, 1.0))
        self.register_buffer("factor", scale / gain)
        self.register_buffer("one", torch.ones_like(scale))
        self.register_buffer("bias", None if bias is None else bias.detach())
        self.gain, self.dtype = gain, weight.dtype

    bias: Tensor | None

    def forward(self, codes: Tensor) -> Tensor:
        """Map codes (…, in) to values (…, out)."""
        if codes.device.type == "cpu":
            exact = (self.weight.float() * (self.factor * self.gain)).to(self.dtype)
            return F.linear(codes.to(self.dtype) / self.gain, exact, self.bias)
        product: Tensor = torch._scaled_mm(
            codes.flatten(0, -2),
            self.weight.T,
            scale_a=self.one,
            scale_b=self.factor,
            bias=self.bias,
            out_dtype=self.dtype,
            use_fast_accum=True,
        )
        return product.view(*codes.shape[:-1], len(self.weight))


class Float8GEGLU(Float8Linear):
    """The linear of a GEGLU, its outputs interleaved: a value, its gate, the next value.

    `onward` is the gain of the GEGLU's result. `factors` (out,) repeat the `factor`, since kernels take one per
    output.
    """

    factors: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, gain: float, onward: float) -> None:
        super().__init__(weight, bias, gain)
        self.register_buffer("factors", self.factor.repeat(len(weight)))
        self.onward = onward
