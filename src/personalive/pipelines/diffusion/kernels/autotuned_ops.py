"""`Operations` in the fastest form at each shape: the kernels of this package, PyTorch's, or another library's."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.attention import MEMORY_EFFICIENT_BACKENDS, with_backend
from personalive.pipelines.diffusion.kernels.fp8 import Float8Convolution, output_gain
from personalive.pipelines.diffusion.kernels.operations import (
    PLAIN_OPERATIONS,
    ConvLayer,
    Kernels,
    Operations,
    TensorWithStats,
)
from personalive.pipelines.diffusion.kernels.selector import PYTORCH, KernelSelector, ProblemKey

Params = ParamSpec("Params")
Result = TypeVar("Result")

_FUSED = "fused"
_WORTH_MS = 0.02
"""Milliseconds: an operation that takes less is not worth compiling kernels for a replacement."""
_GROUPS = 32
_LAYER_SETTINGS = ("num_groups", "stride", "padding", "dilation", "groups")
"""The settings of norms and convolutions on which their time depends, besides the weights."""


def _fastest(
    name: str,
    operation: Callable[Concatenate[Operations, Params], Result],
    *,
    kernels: Callable[..., Kernels[Result]] | None = None,
    is_fused: bool = True,
    uses_backends: bool = False,
    channels_last: bool = False,
    consumer: Callable[[AutotunedOperations, Result], object] | None = None,
) -> Callable[Concatenate[AutotunedOperations, Params], Result]:
    """Return a method that runs an operation in its fastest form, which is measured under that name.

    The forms are PyTorch's, with its result in channels-last memory if `channels_last`; the kernels that a method
    of `Operations` lists, or the fused operation if `is_fused`; and, with `uses_backends`, PyTorch's kernels for
    attention. `consumer` is what follows the operation, and is timed with it.
    """

    def run(self: AutotunedOperations, /, *args: Params.args, **kwargs: Params.kwargs) -> Result:
        def fused() -> Result:
            return cast("Result", getattr(self.fused, operation.__name__)(*args, **kwargs))

        def plain() -> Result:
            result = operation(PLAIN_OPERATIONS, *args, **kwargs)
            return _to_channels_last(result) if channels_last else result

        if torch.compiler.is_compiling():
            return fused() if is_fused and not self.selector.has_failed(name, _FUSED) else plain()
        forms: Kernels[Result] = {_FUSED: fused} if is_fused else {}
        if kernels is not None:
            forms = cast("Kernels[Result]", getattr(self.fused, kernels.__name__)(*args, **kwargs))
        result: Result = self.selector.run(
            name,
            (_describe(args), *((option, _describe(value)) for option, value in kwargs.items())),
            forms,
            plain,
            libraries={each: with_backend(each, plain) for each in self.backends} if uses_backends else None,
            consumer=None if consumer is None else partial(consumer, self),
        )
        return result

    return run


class AutotunedOperations(Operations):
    """Operations for which a `selector` chooses between `fused` and PyTorch's; results have the fused ones' layout.

    `backends` are PyTorch's attention kernels to choose between, none where another is set. While a network is
    being compiled nothing can be measured: operations are fused there, unless their kernels have failed before.
    """

    fuses_residual_matmul = True

    def __init__(
        self,
        fused: Operations,
        selector: KernelSelector,
        backends: Sequence[str] = MEMORY_EFFICIENT_BACKENDS,
    ) -> None:
        self.fused = fused
        self.selector = selector
        self.backends = tuple(backends)

    # With given statistics the fused norm reads the picture once less.
    group_norm = _fastest("group norm", Operations.group_norm, channels_last=True)

    def _group_norm_for_timing(self, x: TensorWithStats) -> Tensor:
        channels = x.tensor.shape[1]
        weight = x.tensor.new_ones(channels)
        norm = nn.GroupNorm(math.gcd(channels, _GROUPS), channels, device="meta")
        norm.weight = norm.bias = nn.Parameter(weight, requires_grad=False)
        return self.group_norm(x, norm)

    # Timed with a norm after it, since only a norm uses the statistics.
    _add = _fastest("add", Operations.add_with_stats, channels_last=True, consumer=_group_norm_for_timing)

    def add_with_stats(self, x: Tensor, update: Tensor | None, bias: Tensor | None = None) -> TensorWithStats:
        """See `Operations`."""
        if update is None and bias is None:
            return super().add_with_stats(x, update, bias)
        return self._add(x, update, bias)

    _conv_codes = _fastest("convolution of codes", Operations.conv, kernels=Operations.fp8_conv_kernels)

    def conv(self, x: Tensor, layer: ConvLayer) -> tuple[Tensor, Tensor | None]:
        """See `Operations`. For values it is always a library's; forms differ in where the bias is added."""
        if isinstance(layer, Float8Convolution):
            return self._conv_codes(x, layer)
        return self.fused.conv(x, layer)

    conv_relu = _fastest("rectified convolution", Operations.conv_relu)
    batch_norm_relu = _fastest("rectified norm", Operations.batch_norm_relu, channels_last=True)
    concat_kv = _fastest("join", Operations.concat_kv)
    layer_norm = _fastest("layer norm", Operations.layer_norm)
    geglu = _fastest("gated", Operations.geglu)
    linear_geglu = _fastest("gated product", Operations.linear_geglu, kernels=Operations.linear_geglu_kernels)
    geglu_fp8 = _fastest("gated product of codes", Operations.geglu_fp8, kernels=Operations.geglu_fp8_kernels)
    attention = _fastest("attention", Operations.attention, is_fused=False, uses_backends=True)
    single_head_attention = _fastest(
        "attention in one head", Operations.single_head_attention, uses_backends=True
    )
    temporal_attention = _fastest("attention along time", Operations.temporal_attention)

    def add_matmul(self, total: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        """See `Operations`. It is always a library's."""
        return self.fused.add_matmul(total, values, weight)

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
        if not self.fused.linear_geglu_kernels(weight, weight, bias):
            return False
        random = torch.Generator(weight.device).manual_seed(0)
        tokens = torch.empty(1, rows, weight.shape[1], dtype=weight.dtype, device=weight.device)
        tokens.normal_(generator=random)
        fastest = self.selector.select_fastest(
            "paired gate",
            (_describe(tokens), _describe(weight)),
            self.fused.linear_geglu_kernels(tokens, weight, bias),
            lambda: self.geglu(F.linear(tokens, weight, bias)),
        )
        return fastest != PYTORCH


def _describe(value: object) -> Hashable:
    """Return what an operation's time depends on of one of its arguments.

    That is a tensor's shape and type and, unless it is contiguous or channels-last, its strides; the weight and the
    settings of a layer; and of a norm also whether it outputs codes.
    """
    if isinstance(value, Tensor):
        return _layout(value)
    if isinstance(value, tuple):
        return tuple(map(_describe, value))
    if isinstance(value, nn.Module):
        settings = (vars(value).get(name) for name in _LAYER_SETTINGS)
        return (_describe(value.weight), output_gain(value) is not None, *settings)
    assert isinstance(value, Hashable)
    return value


def _layout(tensor: Tensor) -> Hashable:
    if tensor.is_contiguous():
        return (tensor.shape, tensor.dtype)
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return (tensor.shape, tensor.dtype, "channels last")
    return (tensor.shape, tensor.dtype, tensor.stride())


def _to_channels_last(result: Result) -> Result:
    if isinstance(result, TensorWithStats):
        return cast("Result", result._replace(tensor=_to_channels_last(result.tensor)))
    return cast("Result", cast("Tensor", result).contiguous(memory_format=torch.channels_last))
