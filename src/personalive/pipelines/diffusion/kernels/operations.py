"""The operations that can be fused, their definition, and how a network's implementation of them is set.

Networks call them through `OperationsModule.operations`; `set_operations` sets the implementation of a network, so
that two pipelines in one process may differ. `Operations` is PyTorch on any device and defines the results;
`TritonOperations` computes the same in fewer passes over memory; `AutotunedOperations` uses the faster of both at
each shape.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.fp8 import (
    Float8Convolution,
    Float8GEGLU,
    output_gain,
    quantize_fp8,
)

ConvLayer = nn.Conv2d | nn.ConvTranspose2d | Float8Convolution
Result = TypeVar("Result")
Kernels = dict[str, Callable[[], Result]]
"""Kernels that compute the same, by name, with the one that is probably fastest first."""


class LayerNormOutput(NamedTuple):
    """The results of `layer_norm`: `sum`, the tokens with all additions, and `normed`, their norm: (B, T, C)."""

    sum: Tensor
    normed: Tensor


class TensorWithStats(NamedTuple):
    """A feature map (N, C, h, w) with, if known, the statistics for its group norm.

    Only the operations that computed the `stats` can read them; they save the norm a pass over the feature map.
    """

    tensor: Tensor
    stats: Tensor | None = None


class Operations:
    """The operations that can be fused, in PyTorch and one at a time; subclasses may compute the same faster.

    They take floating types only; the result has the first argument's type. Where a norm or a layer is one of
    `fp8`, the norm's output and the layer's input are codes.
    """

    fuses_residual_matmul = False
    """Whether `add_matmul` is faster than a product and a sum; the product's bias then goes into `layer_norm`."""

    def group_norm(
        self, x: TensorWithStats, norm: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        """Return the group norm of x + shift, then SiLU if `silu`: x (N, C, h, w) → the same shape.

        shift (N or 1, C) is added to every pixel first.
        """
        picture = x.tensor if shift is None else x.tensor + shift[:, :, None, None]
        normed = F.group_norm(picture, norm.num_groups, norm.weight, norm.bias, norm.eps)
        normed = F.silu(normed) if silu else normed
        gain = output_gain(norm)
        return normed if gain is None else quantize_fp8(normed, gain)

    def add_with_stats(self, x: Tensor, update: Tensor | None, bias: Tensor | None = None) -> TensorWithStats:
        """Return x + update + bias, with statistics if computed: pictures (N, C, h, w), bias (C,)."""
        x = x if update is None else x + update
        return TensorWithStats(x if bias is None else x + bias[:, None, None])

    def conv(self, x: Tensor, layer: ConvLayer) -> tuple[Tensor, Tensor | None]:
        """Return the convolution of x (N, C, h, w), and its bias (C',) if the caller has to add it, else None."""
        return layer(x), None

    def conv_relu(self, x: Tensor, layer: nn.Conv2d, residual: Tensor | None = None) -> Tensor:
        """Return ReLU of the sum of x's convolution, its bias and the residual: (N, C, h, w) → (N, C', h', w')."""
        out = layer(x)
        return F.relu(out if residual is None else out + residual)

    def batch_norm_relu(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """Return ReLU of x (N, C, h, w) normed by the norm's running statistics."""
        return F.relu(norm(x))

    def concat_kv(self, own: Tensor, shared: Tensor) -> Tensor:
        """Concatenate each frame's tokens and those that its session's frames share.

        own (S·F, L, C) and shared (S, M, C) → (S·F, L + M, C).
        """
        frames = own.unflatten(0, (len(shared), -1))
        repeated = shared[:, None].expand(-1, frames.shape[1], -1, -1)
        return torch.cat([frames, repeated], dim=2).flatten(0, 1)

    def layer_norm(
        self,
        tokens: Tensor,
        norm: nn.LayerNorm,
        update: Tensor | None = None,
        shift: Tensor | None = None,
        position_code: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> LayerNormOutput:
        """Return the layer norm of tokens + update + shift, plus position_code; and their sum, plus bias.

        tokens and update (B, T, C); shift (S, 1, C), S dividing B: its row s is for the B/S batch entries from
        s·B/S on; position_code (F, C), F dividing B: its row f is added to the normed tokens of every F-th batch
        entry from f on; bias (C,).
        """
        if update is not None:
            tokens = tokens + update
        if shift is not None:
            tokens = tokens + shift.repeat_interleave(len(tokens) // len(shift), dim=0)
        normed = F.layer_norm(tokens, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        if position_code is not None:
            normed = (normed.unflatten(0, (-1, len(position_code))) + position_code[:, None]).flatten(0, 1)
        gain = output_gain(norm)
        normed = normed if gain is None else quantize_fp8(normed, gain)
        return LayerNormOutput(tokens if bias is None else tokens + bias, normed)

    def add_matmul(self, total: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        """Return total + the product of values and weight: (B, T, C), (B, T, K), (C, K) → (B, T, C).

        It may overwrite total: pass one that is not needed afterwards. The product accumulates into it, without
        another pass over memory.
        """
        total = total.contiguous()
        total.view(-1, total.shape[-1]).addmm_(values.flatten(0, -2), weight.T)
        return total

    def geglu(self, projected: Tensor) -> Tensor:
        """Return GEGLU, the first half times the exact GELU of the second: (…, 2·C) → (…, C)."""
        value, gate = projected.chunk(2, dim=-1)
        return value * F.gelu(gate)

    def linear_geglu(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return `geglu` of a linear whose outputs are interleaved: a value, its gate, the next value, and so on.

        tokens (…, K), weight (2·C, K), bias (2·C,) → (…, C).
        """
        projected = F.linear(tokens, weight, bias)
        return projected[..., ::2] * F.gelu(projected[..., 1::2])

    def geglu_fp8(self, codes: Tensor, layer: Float8GEGLU) -> Tensor:
        """Map codes (…, K) to the codes of their GEGLU (…, C)."""
        projected = layer(codes)
        return quantize_fp8(projected[..., ::2] * F.gelu(projected[..., 1::2]), layer.onward)

    def fp8_conv_kernels(
        self, codes: Tensor, layer: Float8Convolution
    ) -> Kernels[tuple[Tensor, Tensor | None]]:
        """Return the kernels for `conv` of codes on this device."""
        del codes, layer
        return {}

    def linear_geglu_kernels(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Kernels[Tensor]:
        """Return the kernels for `linear_geglu` on this device."""
        del tokens, weight, bias
        return {}

    def geglu_fp8_kernels(self, codes: Tensor, layer: Float8GEGLU) -> Kernels[Tensor]:
        """Return the kernels for `geglu_fp8` on this device."""
        del codes, layer
        return {}

    def prefers_replacement(
        self,
        change: str,
        given: tuple[Hashable, ...],
        changed: Callable[[], object],
        plain: Callable[[], object],
    ) -> bool:
        """Return whether `changed` is faster than `plain`; `given` is all that their time depends on.

        False where `plain` takes so little time that nothing could be gained. Where nothing is measured, as here,
        the change is always made.
        """
        del change, given, changed, plain
        return True

    def prefers_interleaved(self, rows: int, linear: nn.Linear) -> bool:
        """Return whether, for `rows` rows, interleaving the linear's outputs is worthwhile.

        It is if `linear_geglu` of the interleaved linear is faster than `geglu` of the linear as it is.
        """
        del rows, linear
        return False

    def attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """Return softmax attention, scale head_width^-0.5: query (B, T, C), key and value (B, S, C) → (B, T, C).

        C is a multiple of `heads`. It uses the kernel that PyTorch is set to prefer.
        """
        split = [tokens.unflatten(-1, (heads, -1)).transpose(1, 2) for tokens in (query, key, value)]
        return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)

    def single_head_attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return softmax attention in one head, scale C^-0.5: query (B, T, C), key, value (B, S, C) → (B, T, C)."""
        return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]

    def temporal_attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """Return softmax attention of each pixel to itself in the other frames, scale head_width^-0.5.

        All are (S, F, L, C) for S sessions, F frames, L pixels; C is a multiple of `heads`.
        """
        sessions, _, length, _ = query.shape
        split = [
            tokens.transpose(1, 2).flatten(0, 1).unflatten(-1, (heads, -1)).transpose(1, 2)
            for tokens in (query, key, value)
        ]
        attended: Tensor = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        return attended.view(sessions, length, *attended.shape[1:]).transpose(1, 2)


PLAIN_OPERATIONS = Operations()


class OperationsModule(nn.Module):
    """A module that computes with exchangeable `operations`."""

    operations: Operations = PLAIN_OPERATIONS


def set_operations(network: nn.Module, operations: Operations) -> None:
    """Set the operations with which every module of the network computes from now on."""
    for module in network.modules():
        if isinstance(module, OperationsModule):
            module.operations = operations
