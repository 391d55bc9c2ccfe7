"""Pieces of work, the ledger they are noted in, and operations that note what fused kernels read and write."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels.fp8 import Float8Convolution, Float8GEGLU
from personalive.pipelines.diffusion.kernels.operations import (
    ConvLayer,
    LayerNormOutput,
    Operations,
    TensorWithStats,
)


class Kind(StrEnum):
    """What bounds a piece of work."""

    PRODUCTS = "products"
    EIGHT_BITS = "products in 8 bits"
    CONVOLUTIONS = "convolutions"
    ATTENTION = "attention"
    FLOAT32 = "float32 arithmetic"
    PASSES = "passes over memory"


@dataclass(frozen=True, slots=True)
class Piece:
    """One kernel's work: FLOP, bytes read and written, and of attention the exponentials."""

    kind: Kind
    flop: float
    nbytes: float
    exponentials: float = 0.0


class Ledger:
    """The pieces of each stage, as they are noted."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self._paused = False

    def note(self, kind: Kind, tensors: Iterable[Tensor | None], flop: float = 0, exp: float = 0) -> None:
        """Note a piece that reads and writes these tensors, unless it is part of one that is noted as a whole."""
        if self._paused:
            return
        nbytes = sum(each.nbytes for each in tensors if each is not None)
        self.pieces.append(Piece(kind, float(flop), float(nbytes), float(exp)))

    @contextmanager
    def whole(self) -> Iterator[None]:
        """In the block nothing is noted: whoever opens it notes all of it as one piece."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before


class CountedOperations(Operations):
    """The operations with the bytes of fused kernels; what is not told here is counted as PyTorch does it.

    `pairs`: gates are opened in the kernel of the product before them.
    """

    fuses_residual_matmul = True

    def __init__(self, ledger: Ledger, *, pairs: bool) -> None:
        self._pairs = pairs
        self._ledger = ledger

    def prefers_interleaved(self, rows: int, linear: nn.Linear) -> bool:
        """See `Operations`."""
        del rows, linear
        return self._pairs

    def _pass(self, made: Callable[[], Any], *tensors: Tensor | None) -> Any:
        """Return the result of a kernel that reads `tensors` and writes its result."""
        with self._ledger.whole():
            out = made()
        written = out if isinstance(out, tuple) else (out,)
        self._ledger.note(Kind.PASSES, (*tensors, *(each for each in written if isinstance(each, Tensor))))
        return out

    def group_norm(
        self, x: TensorWithStats, norm: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        """Count the picture twice where it has no statistics yet."""
        picture = x.tensor
        sums = picture if x.stats is None else None
        out: Tensor = self._pass(
            lambda: super(CountedOperations, self).group_norm(x, norm, silu=silu, shift=shift), picture, sums
        )
        return out

    def add_with_stats(self, x: Tensor, update: Tensor | None, bias: Tensor | None = None) -> TensorWithStats:
        """Count one pass: it takes the next norm's statistics along."""
        if update is None and bias is None:
            return TensorWithStats(x)
        with self._ledger.whole():
            picture = super().add_with_stats(x, update, bias).tensor
        self._ledger.note(Kind.PASSES, (x, update, picture))
        return TensorWithStats(picture, picture.new_empty(0))

    def conv(self, x: Tensor, layer: ConvLayer) -> tuple[Tensor, Tensor | None]:
        """Count a 1×1 convolution as a product with its bias; others leave the bias to the next operation."""
        if isinstance(layer, Float8Convolution):
            size = (len(x), layer.weight.shape[1], *x.shape[2:])
            out = torch.empty(size, dtype=layer.dtype, device=x.device)
            flop = 2 * out.numel() * len(layer.weight) * layer.weight.shape[2]
            self._ledger.note(Kind.EIGHT_BITS, (x, layer.weight, out), flop)
            return out, layer.bias
        if isinstance(layer, nn.ConvTranspose2d):
            return F.conv_transpose2d(x, layer.weight, None, layer.stride, layer.padding), layer.bias  # type: ignore[arg-type]
        if layer.kernel_size == (1, 1) and layer.stride == (1, 1):
            pixels = F.linear(x.flatten(2).transpose(1, 2), layer.weight.flatten(1), layer.bias)
            return pixels.transpose(1, 2).unflatten(2, x.shape[2:]), None
        return F.conv2d(x, layer.weight, None, layer.stride, layer.padding), layer.bias

    def conv_relu(self, x: Tensor, layer: nn.Conv2d, residual: Tensor | None = None) -> Tensor:
        """Count one kernel, which adds bias and residual before it writes."""
        with self._ledger.whole():
            out = super().conv_relu(x, layer, residual)
        flop = 2 * out.numel() * math.prod(layer.weight.shape[1:])
        self._ledger.note(Kind.CONVOLUTIONS, (x, layer.weight, residual, out), flop)
        return out

    def batch_norm_relu(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """One kernel."""
        out: Tensor = self._pass(lambda: super(CountedOperations, self).batch_norm_relu(x, norm), x)
        return out

    def concat_kv(self, own: Tensor, shared: Tensor) -> Tensor:
        """One kernel; what is shared comes from memory once."""
        out: Tensor = self._pass(lambda: super(CountedOperations, self).concat_kv(own, shared), own, shared)
        return out

    def layer_norm(
        self,
        tokens: Tensor,
        norm: nn.LayerNorm,
        update: Tensor | None = None,
        shift: Tensor | None = None,
        position_code: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> LayerNormOutput:
        """Count a written sum only where something was added."""
        with self._ledger.whole():
            out = super().layer_norm(tokens, norm, update, shift, position_code, bias)
        added = update is not None or shift is not None or bias is not None
        self._ledger.note(Kind.PASSES, (tokens, update, out.normed, out.sum if added else None))
        return out

    def add_matmul(self, total: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        """Count a product that reads what it is added to."""
        self._ledger.note(Kind.PRODUCTS, (total, values, weight, total), 2 * values.numel() * weight.shape[0])
        return total

    def geglu(self, projected: Tensor) -> Tensor:
        """One kernel."""
        out: Tensor = self._pass(lambda: super(CountedOperations, self).geglu(projected), projected)
        return out

    def linear_geglu(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Count a product of which the gated half is written."""
        out = tokens.new_empty(*tokens.shape[:-1], len(weight) // 2)
        self._ledger.note(Kind.PRODUCTS, (tokens, weight, bias, out), 2 * tokens.numel() * len(weight))
        return out

    def single_head_attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Two products and a pass between them, over scores that are kept."""
        (batch, rows, width), columns = query.shape, key.shape[1]
        scores = query.new_empty(batch, rows, columns)
        flop = 2 * scores.numel() * width
        self._ledger.note(Kind.PRODUCTS, (query, key, scores), flop)
        self._ledger.note(Kind.PASSES, (scores, scores))
        self._ledger.note(Kind.PRODUCTS, (scores, value, query), flop)
        return torch.empty_like(query)

    def temporal_attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """One kernel, at the speed of memory."""
        del heads
        out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        self._ledger.note(Kind.PASSES, (query, key, value, out))
        return out

    def geglu_fp8(self, codes: Tensor, layer: Float8GEGLU) -> Tensor:
        """Count a product of 8-bit numbers of which the gated half is written, in 8 bits."""
        out = codes.new_empty(*codes.shape[:-1], len(layer.weight) // 2)
        flop = 2 * codes.numel() * len(layer.weight)
        self._ledger.note(Kind.EIGHT_BITS, (codes, layer.weight, layer.bias, out), flop)
        return out
