"""`Operations` in the fastest form at each shape: the kernels of this package, PyTorch's, or another library's."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.attention import MEMORY_EFFICIENT_BACKENDS, with_backend
from personalive.pipelines.diffusion.kernels.fp8 import (
    Float8Convolution,
    Float8GEGLU,
    output_gain,
)
from personalive.pipelines.diffusion.kernels.operations import (
    PLAIN_OPERATIONS,
    ConvLayer,
    Kernels,
    LayerNormOutput,
    LinearGegluKernel,
    Operations,
    TensorWithStats,
)
from personalive.pipelines.diffusion.kernels.selector import PYTORCH, KernelSelector, ProblemKey

Result = TypeVar("Result")

_FUSED = "fused"
_WORTH_MS = 0.02
"""Milliseconds: an operation that takes less is not worth compiling kernels for a replacement."""
_GROUPS = 32


class FusedOperations(Operations, Protocol):
    """Operations some of which have several forms; see `TritonOperations`."""

    def linear_geglu_kernels(self, tokens: Tensor, weight: Tensor) -> dict[str, LinearGegluKernel]:
        """Return the kernels that take such tokens and such an interleaved weight, by name."""

    def fp8_conv_kernels(self, codes: Tensor, layer: Float8Convolution) -> Kernels:
        """Return the kernels for `conv` of codes, without the bias."""

    def fp8_geglu_kernels(self, codes: Tensor, layer: Float8GEGLU) -> Kernels:
        """Return the kernels for `geglu_fp8`."""


class AutotunedOperations:
    """Operations for which a `selector` chooses between `fused` and PyTorch's; results have the fused ones' layout.

    `backends` are PyTorch's attention kernels to choose between, none where another is set. While a network is
    being compiled nothing can be measured: operations are fused there, unless their kernels have failed before.
    """

    fuses_residual_matmul = True

    def __init__(
        self,
        fused: FusedOperations,
        selector: KernelSelector,
        backends: Sequence[str] = MEMORY_EFFICIENT_BACKENDS,
    ) -> None:
        self.fused = fused
        self.selector = selector
        self._backends = tuple(backends)

    def group_norm(
        self, x: TensorWithStats, norm: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        """See `Operations`. With given statistics the fused norm reads the picture once less."""
        return self._select(
            "group norm",
            lambda: (
                _layout_key(x.tensor),
                _layout_key(x.stats),
                norm.num_groups,
                silu,
                _layout_key(shift),
                *_output_kinds(norm),
            ),
            lambda: self.fused.group_norm(x, norm, silu=silu, shift=shift),
            lambda: _to_channels_last(PLAIN_OPERATIONS.group_norm(x, norm, silu=silu, shift=shift)),
        )

    def add_with_stats(self, x: Tensor, update: Tensor | None, bias: Tensor | None = None) -> TensorWithStats:
        """See `Operations`. It is timed with a norm after it, since only a norm uses the statistics."""
        if update is None and bias is None:
            return PLAIN_OPERATIONS.add_with_stats(x, update, bias)
        return self._select(
            "add",
            lambda: (_layout_key(x), _layout_key(update), _layout_key(bias)),
            lambda: self.fused.add_with_stats(x, update, bias),
            lambda: TensorWithStats(
                _to_channels_last(PLAIN_OPERATIONS.add_with_stats(x, update, bias).tensor)
            ),
            consumer=self._group_norm_for_timing,
        )

    def _group_norm_for_timing(self, x: TensorWithStats) -> Tensor:
        channels = x.tensor.shape[1]
        weight = x.tensor.new_ones(channels)
        norm = nn.GroupNorm(math.gcd(channels, _GROUPS), channels, device="meta")
        norm.weight = norm.bias = nn.Parameter(weight, requires_grad=False)
        return self.group_norm(x, norm)

    def conv(self, x: Tensor, layer: ConvLayer) -> tuple[Tensor, Tensor | None]:
        """See `Operations`. For values it is always a library's; forms differ in where the bias is added."""
        if not isinstance(layer, Float8Convolution) or torch.compiler.is_compiling():
            return self.fused.conv(x, layer)
        forms = self.fused.fp8_conv_kernels(x, layer)
        return self.selector.run(
            "convolution of codes",
            (_layout_key(x), _layout_key(layer.weight)),
            {name: lambda form=form: (form(), layer.bias) for name, form in forms.items()},  # type: ignore[misc]
            lambda: PLAIN_OPERATIONS.conv(x, layer),
        )

    def conv_relu(self, x: Tensor, layer: nn.Conv2d, residual: Tensor | None = None) -> Tensor:
        """See `Operations`."""
        how = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return self._select(
            "rectified convolution",
            lambda: (_layout_key(x), _layout_key(layer.weight), how, residual is not None),
            lambda: self.fused.conv_relu(x, layer, residual),
            lambda: PLAIN_OPERATIONS.conv_relu(x, layer, residual),
        )

    def batch_norm_relu(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """See `Operations`."""
        return self._select(
            "rectified norm",
            lambda: (_layout_key(x),),
            lambda: self.fused.batch_norm_relu(x, norm),
            lambda: _to_channels_last(PLAIN_OPERATIONS.batch_norm_relu(x, norm)),
        )

    def concat_kv(self, own: Tensor, shared: Tensor) -> Tensor:
        """See `Operations`."""
        return self._select(
            "join",
            lambda: (_layout_key(own), _layout_key(shared)),
            lambda: self.fused.concat_kv(own, shared),
            lambda: PLAIN_OPERATIONS.concat_kv(own, shared),
        )

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
        return self._select(
            "layer norm",
            lambda: (
                *(
                    _layout_key(tokens),
                    _layout_key(update),
                    _layout_key(shift),
                    _layout_key(position_code),
                    bias is not None,
                ),
                *_output_kinds(norm),
            ),
            lambda: self.fused.layer_norm(tokens, norm, update, shift, position_code, bias),
            lambda: PLAIN_OPERATIONS.layer_norm(tokens, norm, update, shift, position_code, bias),
        )

    def add_matmul(self, total: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        """See `Operations`. It is always a library's."""
        return self.fused.add_matmul(total, values, weight)

    def geglu(self, projected: Tensor) -> Tensor:
        """See `Operations`."""
        return self._select(
            "gated",
            lambda: (_layout_key(projected),),
            lambda: self.fused.geglu(projected),
            lambda: PLAIN_OPERATIONS.geglu(projected),
        )

    def linear_geglu(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See `Operations`."""
        if torch.compiler.is_compiling():
            return self.fused.linear_geglu(tokens, weight, bias)
        return self.selector.run(
            "gated product",
            (_layout_key(tokens), _layout_key(weight)),
            self._linear_geglu_calls(tokens, weight, bias),
            lambda: PLAIN_OPERATIONS.linear_geglu(tokens, weight, bias),
        )

    def geglu_fp8(self, codes: Tensor, layer: Float8GEGLU) -> Tensor:
        """See `Operations`."""
        if torch.compiler.is_compiling():
            return self.fused.geglu_fp8(codes, layer)
        return self.selector.run(
            "gated product of codes",
            (_layout_key(codes), _layout_key(layer.weight)),
            self.fused.fp8_geglu_kernels(codes, layer),
            lambda: PLAIN_OPERATIONS.geglu_fp8(codes, layer),
        )

    def prefers_replacement(
        self,
        change: str,
        given: ProblemKey,
        changed: Callable[[], object],
        plain: Callable[[], object],
    ) -> bool:
        """See `Operations`. It times both."""
        fastest = self.selector.select_fastest(change, given, {"changed": changed}, plain, worth_ms=_WORTH_MS)
        return fastest != PYTORCH

    def prefers_interleaved(self, rows: int, linear: nn.Linear) -> bool:
        """See `Operations`. It times both, on random tokens."""
        weight, bias = linear.weight.detach(), linear.bias.detach()
        if not self.fused.linear_geglu_kernels(weight, weight):
            return False
        random = torch.Generator(weight.device).manual_seed(0)
        tokens = torch.empty(1, rows, weight.shape[1], dtype=weight.dtype, device=weight.device)
        tokens.normal_(generator=random)
        fastest = self.selector.select_fastest(
            "paired gate",
            (_layout_key(tokens), _layout_key(weight)),
            self._linear_geglu_calls(tokens, weight, bias),
            lambda: self.geglu(F.linear(tokens, weight, bias)),
        )
        return fastest != PYTORCH

    def _linear_geglu_calls(
        self, tokens: Tensor, weight: Tensor, bias: Tensor
    ) -> dict[str, Callable[[], Tensor]]:
        forms = self.fused.linear_geglu_kernels(tokens, weight)
        return {name: lambda form=form: form(tokens, weight, bias) for name, form in forms.items()}  # type: ignore[misc]

    def attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """See `Operations`."""
        return self._select_attention(
            "attention",
            (heads,),
            {},
            lambda: PLAIN_OPERATIONS.attention(query, key, value, heads),
            query,
            key,
            value,
        )

    def single_head_attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Operations`."""
        return self._select_attention(
            "attention in one head",
            (),
            {_FUSED: lambda: self.fused.single_head_attention(query, key, value)},
            lambda: PLAIN_OPERATIONS.single_head_attention(query, key, value),
            query, key, value,
        )  # fmt: skip

    def _select_attention(
        self,
        operation: str,
        options: tuple[Hashable, ...],
        kernels: dict[str, Callable[[], Tensor]],
        plain: Callable[[], Tensor],
        *tensors: Tensor,
    ) -> Tensor:
        if torch.compiler.is_compiling():
            return kernels.get(_FUSED, plain)()
        return self.selector.run(
            operation,
            (*map(_layout_key, tensors), *options),
            kernels,
            plain,
            libraries={name: with_backend(name, plain) for name in self._backends},
        )

    def temporal_attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """See `Operations`."""
        return self._select(
            "attention along time",
            lambda: (_layout_key(query), _layout_key(key), _layout_key(value), heads),
            lambda: self.fused.temporal_attention(query, key, value, heads),
            lambda: PLAIN_OPERATIONS.temporal_attention(query, key, value, heads),
        )

    def _select(
        self,
        operation: str,
        problem: Callable[[], ProblemKey],
        fused: Callable[[], Result],
        plain: Callable[[], Result],
        consumer: Callable[[Result], object] | None = None,
    ) -> Result:
        if torch.compiler.is_compiling():
            return plain() if self.selector.has_failed(operation, _FUSED) else fused()
        return self.selector.run(operation, problem(), {_FUSED: fused}, plain, consumer=consumer)


def _layout_key(tensor: Tensor | None) -> Hashable:
    """Return a tensor's shape and type and, unless it is contiguous or channels-last, its strides."""
    if tensor is None:
        return None
    if tensor.is_contiguous():
        return (tensor.shape, tensor.dtype)
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return (tensor.shape, tensor.dtype, "channels last")
    return (tensor.shape, tensor.dtype, tensor.stride())


def _output_kinds(norm: nn.Module) -> tuple[str, ...]:
    """Return what a norm outputs, if it is not values."""
    return () if output_gain(norm) is None else ("codes",)


def _to_channels_last(picture: Tensor) -> Tensor:
    return picture.contiguous(memory_format=torch.channels_last)
