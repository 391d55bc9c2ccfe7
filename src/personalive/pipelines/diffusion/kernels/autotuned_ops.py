"""`Operations` in whichever form is fastest at each shape: our kernels, PyTorch's, or another library's."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.attention import FAST, by_backend
from personalive.pipelines.diffusion.kernels.fp8 import (
    Float8Convolution,
    Float8Gate,
    gain_of,
)
from personalive.pipelines.diffusion.kernels.operations import (
    PLAIN,
    Convolution,
    Normed,
    Operations,
    Summed,
)
from personalive.pipelines.diffusion.kernels.selector import PLAIN_FORM, Chooser, Given

Result = TypeVar("Result")
Product = Callable[..., Tensor]
Kernels = dict[str, Callable[[], Tensor]]

_FORM = "fused"
_WORTH_MS = 0.02
"""What takes less is not worth the kernels that a change would compile."""
_GROUPS = 32


class FusedOperations(Operations, Protocol):
    """Operations of which some have several forms; see `TritonOperations`."""

    def products(self, tokens: Tensor, weight: Tensor) -> dict[str, Product]:
        """Those that take such tokens and such a paired weight, by name."""

    def convolutions(self, codes: Tensor, layer: Float8Convolution) -> Kernels:
        """Of `convolve`, without the bias."""

    def gates(self, codes: Tensor, layer: Float8Gate) -> Kernels:
        """Of `gated_codes`."""


class MeasuredOperations:
    """The forms of `fused` and PyTorch's, chosen between by a `chooser`; results lie in memory as fused ones do.

    `backends`: PyTorch's attention kernels to choose between, none where another is asked for. Where a network is
    compiled, nothing can be measured: operations are fused there, as far as their kernels have not failed before.
    """

    accumulates = True

    def __init__(self, fused: FusedOperations, chooser: Chooser, backends: Sequence[str] = FAST) -> None:
        self.fused = fused
        self.chooser = chooser
        self._backends = tuple(backends)

    def group_norm(
        self, x: Summed, norm: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        """See `Operations`. With sums taken down before, our norm reads the picture once less."""
        return self._either(
            "group norm",
            lambda: (_laid(x.picture), _laid(x.sums), norm.num_groups, silu, _laid(shift), *_gives(norm)),
            lambda: self.fused.group_norm(x, norm, silu=silu, shift=shift),
            lambda: _channels_last(PLAIN.group_norm(x, norm, silu=silu, shift=shift)),
        )

    def add(self, x: Tensor, update: Tensor | None, bias: Tensor | None = None) -> Summed:
        """See `Operations`. Timed with a norm behind it: what it takes down is of use there alone."""
        if update is None and bias is None:
            return PLAIN.add(x, update, bias)
        return self._either(
            "add",
            lambda: (_laid(x), _laid(update), _laid(bias)),
            lambda: self.fused.add(x, update, bias),
            lambda: Summed(_channels_last(PLAIN.add(x, update, bias).picture)),
            followed=self._normed,
        )

    def _normed(self, x: Summed) -> Tensor:
        channels = x.picture.shape[1]
        weight = x.picture.new_ones(channels)
        norm = nn.GroupNorm(math.gcd(channels, _GROUPS), channels, device="meta")
        norm.weight = norm.bias = nn.Parameter(weight, requires_grad=False)
        return self.group_norm(x, norm)

    def convolve(self, x: Tensor, layer: Convolution) -> tuple[Tensor, Tensor | None]:
        """See `Operations`. Of values a library's in any case; what differs is who adds the bias."""
        if not isinstance(layer, Float8Convolution) or torch.compiler.is_compiling():
            return self.fused.convolve(x, layer)
        forms = self.fused.convolutions(x, layer)
        return self.chooser.run(
            "convolution of codes",
            (_laid(x), _laid(layer.weight)),
            {name: lambda form=form: (form(), layer.bias) for name, form in forms.items()},  # type: ignore[misc]
            lambda: PLAIN.convolve(x, layer),
        )

    def rectified_convolution(self, x: Tensor, layer: nn.Conv2d, residual: Tensor | None = None) -> Tensor:
        """See `Operations`."""
        how = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return self._either(
            "rectified convolution",
            lambda: (_laid(x), _laid(layer.weight), how, residual is not None),
            lambda: self.fused.rectified_convolution(x, layer, residual),
            lambda: PLAIN.rectified_convolution(x, layer, residual),
        )

    def rectified_norm(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """See `Operations`."""
        return self._either(
            "rectified norm",
            lambda: (_laid(x),),
            lambda: self.fused.rectified_norm(x, norm),
            lambda: _channels_last(PLAIN.rectified_norm(x, norm)),
        )

    def join(self, own: Tensor, shared: Tensor) -> Tensor:
        """See `Operations`."""
        return self._either(
            "join",
            lambda: (_laid(own), _laid(shared)),
            lambda: self.fused.join(own, shared),
            lambda: PLAIN.join(own, shared),
        )

    def layer_norm(
        self,
        tokens: Tensor,
        norm: nn.LayerNorm,
        update: Tensor | None = None,
        shift: Tensor | None = None,
        code: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Normed:
        """See `Operations`."""
        return self._either(
            "layer norm",
            lambda: (
                *(_laid(tokens), _laid(update), _laid(shift), _laid(code), bias is not None),
                *_gives(norm),
            ),
            lambda: self.fused.layer_norm(tokens, norm, update, shift, code, bias),
            lambda: PLAIN.layer_norm(tokens, norm, update, shift, code, bias),
        )

    def accumulate(self, total: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        """See `Operations`. A library's in any case."""
        return self.fused.accumulate(total, values, weight)

    def gated(self, projected: Tensor) -> Tensor:
        """See `Operations`."""
        return self._either(
            "gated",
            lambda: (_laid(projected),),
            lambda: self.fused.gated(projected),
            lambda: PLAIN.gated(projected),
        )

    def gated_product(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See `Operations`."""
        if torch.compiler.is_compiling():
            return self.fused.gated_product(tokens, weight, bias)
        return self.chooser.run(
            "gated product",
            (_laid(tokens), _laid(weight)),
            self._products(tokens, weight, bias),
            lambda: PLAIN.gated_product(tokens, weight, bias),
        )

    def gated_codes(self, codes: Tensor, layer: Float8Gate) -> Tensor:
        """See `Operations`."""
        if torch.compiler.is_compiling():
            return self.fused.gated_codes(codes, layer)
        return self.chooser.run(
            "gated product of codes",
            (_laid(codes), _laid(layer.weight)),
            self.fused.gates(codes, layer),
            lambda: PLAIN.gated_codes(codes, layer),
        )

    def prefers(
        self,
        change: str,
        given: Given,
        changed: Callable[[], object],
        plain: Callable[[], object],
    ) -> bool:
        """See `Operations`. By timing both."""
        fastest = self.chooser.fastest(change, given, {"changed": changed}, plain, worth_ms=_WORTH_MS)
        return fastest != PLAIN_FORM

    def pairs(self, rows: int, linear: nn.Linear) -> bool:
        """See `Operations`. By timing both, on made-up tokens."""
        weight, bias = linear.weight.detach(), linear.bias.detach()
        if not self.fused.products(weight, weight):
            return False
        random = torch.Generator(weight.device).manual_seed(0)
        tokens = torch.empty(1, rows, weight.shape[1], dtype=weight.dtype, device=weight.device)
        tokens.normal_(generator=random)
        fastest = self.chooser.fastest(
            "paired gate",
            (_laid(tokens), _laid(weight)),
            self._products(tokens, weight, bias),
            lambda: self.gated(F.linear(tokens, weight, bias)),
        )
        return fastest != PLAIN_FORM

    def _products(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> dict[str, Callable[[], Tensor]]:
        forms = self.fused.products(tokens, weight)
        return {name: lambda form=form: form(tokens, weight, bias) for name, form in forms.items()}  # type: ignore[misc]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """See `Operations`."""
        return self._attended(
            "attention", (heads,), {}, lambda: PLAIN.attend(query, key, value, heads), query, key, value
        )

    def attend_wide(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Operations`."""
        return self._attended(
            "attention in one head",
            (),
            {_FORM: lambda: self.fused.attend_wide(query, key, value)},
            lambda: PLAIN.attend_wide(query, key, value),
            query, key, value,
        )  # fmt: skip

    def _attended(
        self,
        operation: str,
        how: tuple[Hashable, ...],
        kernels: dict[str, Callable[[], Tensor]],
        plain: Callable[[], Tensor],
        *given: Tensor,
    ) -> Tensor:
        if torch.compiler.is_compiling():
            return kernels.get(_FORM, plain)()
        return self.chooser.run(
            operation,
            (*map(_laid, given), *how),
            kernels,
            plain,
            libraries={name: by_backend(name, plain) for name in self._backends},
        )

    def attend_along_time(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """See `Operations`."""
        return self._either(
            "attention along time",
            lambda: (_laid(query), _laid(key), _laid(value), heads),
            lambda: self.fused.attend_along_time(query, key, value, heads),
            lambda: PLAIN.attend_along_time(query, key, value, heads),
        )

    def _either(
        self,
        operation: str,
        given: Callable[[], Given],
        fused: Callable[[], Result],
        plain: Callable[[], Result],
        followed: Callable[[Result], object] | None = None,
    ) -> Result:
        if torch.compiler.is_compiling():
            return plain() if self.chooser.out(operation, _FORM) else fused()
        return self.chooser.run(operation, given(), {_FORM: fused}, plain, followed=followed)


def _laid(tensor: Tensor | None) -> Hashable:
    """A tensor's shape and type and, unless it lies row by row or channels-last, its strides."""
    if tensor is None:
        return None
    if tensor.is_contiguous():
        return (tensor.shape, tensor.dtype)
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return (tensor.shape, tensor.dtype, "channels last")
    return (tensor.shape, tensor.dtype, tensor.stride())


def _gives(norm: nn.Module) -> tuple[str, ...]:
    """What a norm gives, where it is not values."""
    return () if gain_of(norm) is None else ("codes",)


def _channels_last(picture: Tensor) -> Tensor:
    return picture.contiguous(memory_format=torch.channels_last)
