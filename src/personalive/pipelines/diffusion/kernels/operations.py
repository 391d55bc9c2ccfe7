"""The operations that can be fused, what they compute, and how a network gets another way of computing them.

Networks call them through `OperationsModule.operations`, so that how they are computed is decided in one place (`set_operations`)
and told to each network: two pipelines of a process may differ. `PlainOperations` is PyTorch on any device and
defines what is meant; `TritonOperations` is the same in fewer passes over memory; `AutotunedOperations` is for each
shape whichever of both is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple, Protocol

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


class LayerNormOutput(NamedTuple):
    """`sum`, the tokens with what was added, and `normed`, their layer norm; both (B, T, C)."""

    sum: Tensor
    normed: Tensor


class TensorWithStats(NamedTuple):
    """A picture (N, C, h, w) and, where whoever made it took them down, the sums that its group norm begins with.

    What `stats` hold is for the operations that made them; they save the norm a pass over the picture.
    """

    tensor: Tensor
    stats: Tensor | None = None


class Operations(Protocol):
    """What can be fused. Floating types only; the result has the first argument's type.

    Where a norm or a layer is one of `float8`, what the one gives and the other takes are codes.
    """

    fuses_residual_matmul: bool
    """Whether `add_matmul` is faster than a product and a sum; the product's bias then goes into `layer_norm`."""

    def group_norm(
        self, x: TensorWithStats, norm: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        """Group norm of x + shift, and then SiLU where asked: x (N, C, h, w) → the same shape.

        shift (N or 1, C) is added to every pixel before.
        """

    def add_with_stats(self, x: Tensor, update: Tensor | None, bias: Tensor | None = None) -> TensorWithStats:
        """x + update + bias: pictures (N, C, h, w), bias (C,)."""

    def conv(self, x: Tensor, layer: ConvLayer) -> tuple[Tensor, Tensor | None]:
        """The convolution of x (N, C, h, w), and of its bias (C',) what is left for the caller to add."""

    def conv_relu(self, x: Tensor, layer: nn.Conv2d, residual: Tensor | None = None) -> Tensor:
        """ReLU of the convolution of x (N, C, h, w) with its bias, plus the residual, which is of its shape."""

    def batch_norm_relu(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """ReLU of x (N, C, h, w) normed by a norm that uses its running statistics."""

    def concat_kv(self, own: Tensor, shared: Tensor) -> Tensor:
        """Each frame's tokens, and behind them those that its session's frames share.

        own (S·F, L, C) and shared (S, M, C) → (S·F, L + M, C).
        """

    def layer_norm(
        self,
        tokens: Tensor,
        norm: nn.LayerNorm,
        update: Tensor | None = None,
        shift: Tensor | None = None,
        position_code: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> LayerNormOutput:
        """Layer norm of tokens + update + shift, plus code; and their sum, plus bias.

        tokens and update (B, T, C); shift (S, 1, C), S dividing B: its row s is for the B/S batch entries from
        s·B/S on; code (F, C), F dividing B: its row f is added to what was normed of every F-th batch entry from f
        on; bias (C,).
        """

    def add_matmul(self, total: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        """total + the product of values and weight: (B, T, C), (B, T, K), (C, K) → (B, T, C).

        May overwrite total: pass one that nobody needs afterwards.
        """

    def geglu(self, projected: Tensor) -> Tensor:
        """GEGLU: the first half times the exact GELU of the second, (…, 2·C) → (…, C)."""

    def linear_geglu(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """`geglu` of a linear whose outputs are paired: a value, its gate, the next value, and so on.

        tokens (…, K), weight (2·C, K), bias (2·C,) → (…, C).
        """

    def geglu_fp8(self, codes: Tensor, layer: Float8GEGLU) -> Tensor:
        """Codes (…, K) → the codes of what is gated (…, C)."""

    def prefers_replacement(
        self,
        change: str,
        given: tuple[Hashable, ...],
        changed: Callable[[], object],
        plain: Callable[[], object],
    ) -> bool:
        """Whether it is worth to do something the changed way; `given`: all that its time depends on.

        It is not where the plain way takes so little that nothing is to be gained.
        """

    def prefers_interleaved(self, rows: int, linear: nn.Linear) -> bool:
        """Whether, for so many rows, `linear_geglu` of the linear with its outputs paired is faster than `geglu`
        of it as it is: whether it is worth the pairing.
        """

    def attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """Softmax attention, scale head_width^-0.5: query (B, T, C), key and value (B, S, C) → (B, T, C).

        C a multiple of `heads`.
        """

    def single_head_attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Softmax attention in one head, scale C^-0.5: query (B, T, C), key and value (B, S, C) → (B, T, C)."""

    def temporal_attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """Softmax attention of each pixel to itself in the other frames, scale head_width^-0.5.

        All (S, F, L, C) for S sessions, F frames, L pixels; C a multiple of `heads`.
        """


class PlainOperations:
    """In PyTorch, an operation at a time."""

    fuses_residual_matmul = False

    def group_norm(
        self, x: TensorWithStats, norm: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        """See `Operations`."""
        picture = x.tensor if shift is None else x.tensor + shift[:, :, None, None]
        normed = F.group_norm(picture, norm.num_groups, norm.weight, norm.bias, norm.eps)
        normed = F.silu(normed) if silu else normed
        gain = output_gain(norm)
        return normed if gain is None else quantize_fp8(normed, gain)

    def add_with_stats(self, x: Tensor, update: Tensor | None, bias: Tensor | None = None) -> TensorWithStats:
        """See `Operations`."""
        x = x if update is None else x + update
        return TensorWithStats(x if bias is None else x + bias[:, None, None])

    def conv(self, x: Tensor, layer: ConvLayer) -> tuple[Tensor, Tensor | None]:
        """See `Operations`."""
        return layer(x), None

    def conv_relu(self, x: Tensor, layer: nn.Conv2d, residual: Tensor | None = None) -> Tensor:
        """See `Operations`."""
        out = layer(x)
        return F.relu(out if residual is None else out + residual)

    def batch_norm_relu(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """See `Operations`."""
        return F.relu(norm(x))

    def concat_kv(self, own: Tensor, shared: Tensor) -> Tensor:
        """See `Operations`."""
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
        """See `Operations`."""
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
        """See `Operations`. The product is added to where it is summed, and nothing passes memory once more."""
        total = total.contiguous()
        total.view(-1, total.shape[-1]).addmm_(values.flatten(0, -2), weight.T)
        return total

    def geglu(self, projected: Tensor) -> Tensor:
        """See `Operations`."""
        value, gate = projected.chunk(2, dim=-1)
        return value * F.gelu(gate)

    def linear_geglu(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See `Operations`."""
        projected = F.linear(tokens, weight, bias)
        return projected[..., ::2] * F.gelu(projected[..., 1::2])

    def geglu_fp8(self, codes: Tensor, layer: Float8GEGLU) -> Tensor:
        """See `Operations`."""
        projected = layer(codes)
        return quantize_fp8(projected[..., ::2] * F.gelu(projected[..., 1::2]), layer.onward)

    def prefers_replacement(
        self,
        change: str,
        given: tuple[Hashable, ...],
        changed: Callable[[], object],
        plain: Callable[[], object],
    ) -> bool:
        """See `Operations`. Nothing is measured: what was asked for is done."""
        del change, given, changed, plain
        return True

    def prefers_interleaved(self, rows: int, linear: nn.Linear) -> bool:
        """See `Operations`."""
        del rows, linear
        return False

    def attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """See `Operations`. By whichever of its kernels PyTorch is set to prefer."""
        split = [tokens.unflatten(-1, (heads, -1)).transpose(1, 2) for tokens in (query, key, value)]
        return F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)

    def single_head_attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Operations`."""
        return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]

    def temporal_attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """See `Operations`."""
        sessions, _, length, _ = query.shape
        split = [
            tokens.transpose(1, 2).flatten(0, 1).unflatten(-1, (heads, -1)).transpose(1, 2)
            for tokens in (query, key, value)
        ]
        attended: Tensor = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        return attended.view(sessions, length, *attended.shape[1:]).transpose(1, 2)


PLAIN_OPERATIONS: Operations = PlainOperations()


class OperationsModule(nn.Module):
    """A module that computes with `operations`."""

    operations: Operations = PLAIN_OPERATIONS


def set_operations(network: nn.Module, operations: Operations) -> None:
    """Let every module of the network compute with these operations from now on."""
    for module in network.modules():
        if isinstance(module, OperationsModule):
            module.operations = operations
