"""`Operations` by the Triton kernels. Importing this needs Triton, which comes with PyTorch for CUDA."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.personalive.kernels import gated_pointers, gated_product, wide_attention
from personalive.pipelines.personalive.kernels.batch_norm import rectified_norm
from personalive.pipelines.personalive.kernels.eight_bits import gated_quantized, quantized
from personalive.pipelines.personalive.kernels.families import refused
from personalive.pipelines.personalive.kernels.group_norm import add, group_norm
from personalive.pipelines.personalive.kernels.layer_norm import layer_norm
from personalive.pipelines.personalive.kernels.operations import PLAIN, Convolution, Normed, Summed
from personalive.pipelines.personalive.kernels.tokens import (
    attend_along_time,
    gated,
    has_room,
    join,
    plus,
)
from personalive.pipelines.personalive.kernels.tuning import INTERPRETED

Product = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Tokens, a paired weight, a paired bias → what is gated; see `Operations.gated_product`."""


def _can(tensor: Tensor) -> bool:
    return tensor.is_cuda or INTERPRETED


class TritonOperations:
    """One kernel where PyTorch has more and keeps its results in between: for group norm three, for attention in a
    wide head one between two products.

    What a kernel cannot do (tensors on a CPU, too many frames, norms without weights), and what this family of
    GPUs is not offered, is left to PyTorch.
    """

    accumulates = True

    def __init__(self, device: torch.device | None = None) -> None:
        # Known beforehand, as a compiler follows what is asked for each tensor.
        gpu = torch.cuda.is_available()
        self._refused = refused(torch.cuda.get_device_capability(device)) if gpu else frozenset[str]()

    def _offered(self, kernel: str) -> bool:
        return kernel not in self._refused

    def group_norm(
        self, x: Summed, norm: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        """See `Operations`."""
        if not _can(x.picture) or norm.weight is None:
            return PLAIN.group_norm(x, norm, silu=silu, shift=shift)
        return group_norm(x.picture, x.sums, norm.weight, norm.bias, norm.num_groups, norm.eps, silu, shift)

    def add(self, x: Tensor, update: Tensor | None, bias: Tensor | None = None) -> Summed:
        """See `Operations`."""
        if not _can(x) or (update is None and bias is None):
            return PLAIN.add(x, update, bias)
        return Summed(*add(x, update, bias))

    def convolve(self, x: Tensor, layer: Convolution) -> tuple[Tensor, Tensor | None]:
        """See `Operations`. PyTorch adds the bias in a pass of its own, so it is left to be added on the way."""
        if layer.bias is None or not isinstance(layer.padding, tuple):
            return PLAIN.convolve(x, layer)
        if isinstance(layer, nn.ConvTranspose2d):
            return F.conv_transpose2d(x, layer.weight, None, layer.stride, layer.padding), layer.bias
        if layer.kernel_size == (1, 1) and layer.stride == (1, 1):
            # A product of matrices, which adds the bias at no cost.
            pixels = F.linear(x.flatten(2).transpose(1, 2), layer.weight.flatten(1), layer.bias)
            return pixels.transpose(1, 2).unflatten(2, x.shape[2:]), None
        return F.conv2d(x, layer.weight, None, layer.stride, layer.padding), layer.bias

    def rectified_convolution(self, x: Tensor, layer: nn.Conv2d, residual: Tensor | None = None) -> Tensor:
        """See `Operations`. cuDNN adds bias and residual and cuts off before it writes."""
        padding = layer.padding
        if (
            not x.is_cuda
            or x.dtype != torch.float16
            or isinstance(padding, str)
            or torch.version.cuda is None
        ):
            return PLAIN.rectified_convolution(x, layer, residual)
        how = (layer.stride, padding, layer.dilation, layer.groups)
        if residual is None:
            return torch.cudnn_convolution_relu(x, layer.weight, layer.bias, *how)
        return torch.cudnn_convolution_add_relu(x, layer.weight, residual, 1.0, layer.bias, *how)

    def rectified_norm(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """See `Operations`."""
        mean, variance = norm.running_mean, norm.running_var
        if not _can(x) or mean is None or variance is None or norm.weight is None:
            return PLAIN.rectified_norm(x, norm)
        return rectified_norm(x, mean, variance, norm.weight, norm.bias, norm.eps)

    def join(self, own: Tensor, shared: Tensor) -> Tensor:
        """See `Operations`."""
        if not _can(own):
            return PLAIN.join(own, shared)
        return join(own, shared)

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
        if not _can(tokens) or norm.weight is None:
            return PLAIN.layer_norm(tokens, norm, update, shift, code, bias)
        total, normed = layer_norm(tokens, norm.weight, norm.bias, norm.eps, update, shift, code, bias)
        return Normed(total if len(total) else tokens, normed)

    def accumulate(self, total: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        """See `Operations`. A library's product, as good as any of ours."""
        return PLAIN.accumulate(total, values, weight)

    def plus(self, tokens: Tensor, update: Tensor) -> Tensor:
        """See `Operations`. PyTorch's is as good for two of one type."""
        if not _can(tokens) or tokens.dtype == update.dtype:
            return PLAIN.plus(tokens, update)
        return plus(tokens, update)

    def gated(self, projected: Tensor) -> Tensor:
        """See `Operations`."""
        if not _can(projected):
            return PLAIN.gated(projected)
        return gated(projected)

    def gated_product(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See `Operations`."""
        for form in self.products(tokens, weight).values():
            return form(tokens, weight, bias)
        return PLAIN.gated_product(tokens, weight, bias)

    def products(self, tokens: Tensor, weight: Tensor) -> dict[str, Product]:
        """The kernels that make such a gated product on this device, by name, the likeliest to be fastest first."""
        found: dict[str, Product] = {}
        if _can(tokens) and self._offered("_gated_product") and gated_product.fits(tokens, weight):
            found["descriptors"] = gated_product.gated_product
        if (
            _can(tokens)
            and self._offered("_gated_product_by_pointers")
            and gated_pointers.fits(tokens, weight)
        ):
            found["pointers"] = gated_pointers.gated_product_by_pointers
        return found

    def pairs(self, rows: int, linear: nn.Linear) -> bool:
        """See `Operations`. Whether there is a kernel for it."""
        del rows
        return bool(self.products(linear.weight, linear.weight))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """See `Operations`. A library's, none of ours is as good."""
        return PLAIN.attend(query, key, value, heads)

    def attend_wide(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Operations`."""
        if not _can(query) or not wide_attention.fits(query, key):
            return PLAIN.attend_wide(query, key, value)
        return wide_attention.attend_wide(query, key, value)

    def attend_along_time(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """See `Operations`."""
        if not _can(query) or not self._offered("_attend_along_time") or not has_room(query, heads):
            return PLAIN.attend_along_time(query, key, value, heads)
        return attend_along_time(query, key, value, heads)

    def quantized(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """See `Operations`."""
        if not _can(values) or not self._offered("_quantized"):
            return PLAIN.quantized(values)
        return quantized(values)

    def gated_quantized(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """See `Operations`."""
        if not _can(projected) or not self._offered("_gated_quantized"):
            return self.quantized(self.gated(projected))
        return gated_quantized(projected)
