"""`Operations` by the Triton kernels. Importing this needs Triton, which comes with PyTorch for CUDA."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from personalive.pipelines.diffusion.kernels import (
    fp8_convolution,
    fp8_convolution_pointers,
    gpu_support,
    linear_geglu,
    linear_geglu_pointers,
    single_head_attention,
)
from personalive.pipelines.diffusion.kernels.autotune import INTERPRETED
from personalive.pipelines.diffusion.kernels.batch_norm import rectified_norm
from personalive.pipelines.diffusion.kernels.fp8 import (
    FLOAT8,
    Float8Convolution,
    Float8Gate,
    gain_of,
)
from personalive.pipelines.diffusion.kernels.gpu_support import refused
from personalive.pipelines.diffusion.kernels.group_norm import add, group_norm
from personalive.pipelines.diffusion.kernels.layer_norm import layer_norm
from personalive.pipelines.diffusion.kernels.operations import PLAIN, Convolution, Normed, Summed
from personalive.pipelines.diffusion.kernels.token_ops import (
    attend_along_time,
    gated,
    has_room,
    join,
)

Product = Callable[..., Tensor]
"""Tokens, a paired weight, a paired bias and, of codes, factors and a gain → what is gated; see `gated_product`."""
Forms = dict[str, Callable[[], Tensor]]
"""Kernels that do the same, by name, the likeliest to be fastest first."""


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
        capability = torch.cuda.get_device_capability(device) if gpu else gpu_support.FLOAT8
        self._refused = refused(capability) if gpu else frozenset[str]()
        self._codes = capability >= gpu_support.FLOAT8

    def _offered(self, kernel: str) -> bool:
        return kernel not in self._refused

    def group_norm(
        self, x: Summed, norm: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        """See `Operations`."""
        if not _can(x.picture) or norm.weight is None:
            return PLAIN.group_norm(x, norm, silu=silu, shift=shift)
        gain = gain_of(norm)
        if gain is not None and not self._codes:
            return PLAIN.group_norm(x, norm, silu=silu, shift=shift)
        return group_norm(
            x.picture, x.sums, norm.weight, norm.bias, norm.num_groups, norm.eps, silu, shift, gain
        )

    def add(self, x: Tensor, update: Tensor | None, bias: Tensor | None = None) -> Summed:
        """See `Operations`."""
        if not _can(x) or (update is None and bias is None):
            return PLAIN.add(x, update, bias)
        return Summed(*add(x, update, bias))

    def convolve(self, x: Tensor, layer: Convolution) -> tuple[Tensor, Tensor | None]:
        """See `Operations`. PyTorch adds the bias in a pass of its own, so it is left to be added on the way."""
        if isinstance(layer, Float8Convolution):
            for form in self.convolutions(x, layer).values():
                return form(), layer.bias
            return PLAIN.convolve(x, layer)
        if layer.bias is None or not isinstance(layer.padding, tuple):
            return PLAIN.convolve(x, layer)
        if isinstance(layer, nn.ConvTranspose2d):
            return F.conv_transpose2d(x, layer.weight, None, layer.stride, layer.padding), layer.bias
        if layer.kernel_size == (1, 1) and layer.stride == (1, 1):
            # A product of matrices, which adds the bias at no cost.
            pixels = F.linear(x.flatten(2).transpose(1, 2), layer.weight.flatten(1), layer.bias)
            return pixels.transpose(1, 2).unflatten(2, x.shape[2:]), None
        return F.conv2d(x, layer.weight, None, layer.stride, layer.padding), layer.bias

    def convolutions(self, codes: Tensor, layer: Float8Convolution) -> Forms:
        """The kernels that make such a convolution on this device, without its bias."""
        found: Forms = {}
        weight, factors, dtype = layer.weight, layer.factors, layer.dtype
        if self._takes_codes(codes, "_convolution8") and fp8_convolution.fits(codes, weight):
            if fp8_convolution.fits_wide(weight):
                found["wide descriptors"] = lambda: fp8_convolution.convolution8(
                    codes, weight, factors, dtype, True
                )
            found["descriptors"] = lambda: fp8_convolution.convolution8(codes, weight, factors, dtype, False)
        if self._takes_codes(codes, "_convolution8_by_pointers") and fp8_convolution_pointers.fits(
            codes, weight
        ):
            found["pointers"] = lambda: fp8_convolution_pointers.convolution8_by_pointers(
                codes, weight, factors, dtype
            )
        return found

    def _takes_codes(self, codes: Tensor, kernel: str) -> bool:
        return _can(codes) and self._codes and self._offered(kernel) and codes.dtype == FLOAT8

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
        gain = gain_of(norm)
        if gain is not None and not self._codes:
            return PLAIN.layer_norm(tokens, norm, update, shift, code, bias)
        total, normed = layer_norm(tokens, norm.weight, norm.bias, norm.eps, update, shift, code, bias, gain)
        return Normed(total if len(total) else tokens, normed)

    def accumulate(self, total: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        """See `Operations`. A library's product, as good as any of ours."""
        return PLAIN.accumulate(total, values, weight)

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
        if _can(tokens) and self._offered("_gated_product") and linear_geglu.fits(tokens, weight):
            found["descriptors"] = linear_geglu.gated_product
        if (
            _can(tokens)
            and self._offered("_gated_product_by_pointers")
            and linear_geglu_pointers.fits(tokens, weight)
        ):
            found["pointers"] = linear_geglu_pointers.gated_product_by_pointers
        return found

    def gated_codes(self, codes: Tensor, layer: Float8Gate) -> Tensor:
        """See `Operations`."""
        for form in self.gates(codes, layer).values():
            return form()
        return PLAIN.gated_codes(codes, layer)

    def gates(self, codes: Tensor, layer: Float8Gate) -> Forms:
        """The kernels that do `gated_codes` on this device."""
        if not self._codes or layer.bias is None:
            return {}
        given = (codes, layer.weight, layer.bias, layer.factors, layer.onward)
        forms = self.products(codes, layer.weight)
        return {name: lambda form=form: form(*given) for name, form in forms.items()}  # type: ignore[misc]

    def prefers(
        self,
        change: str,
        given: tuple[Hashable, ...],
        changed: Callable[[], object],
        plain: Callable[[], object],
    ) -> bool:
        """See `Operations`. Nothing is measured: what was asked for is done."""
        return PLAIN.prefers(change, given, changed, plain)

    def pairs(self, rows: int, linear: nn.Linear) -> bool:
        """See `Operations`. Whether there is a kernel for it."""
        del rows
        return bool(self.products(linear.weight, linear.weight))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """See `Operations`. A library's, none of ours is as good."""
        return PLAIN.attend(query, key, value, heads)

    def attend_wide(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Operations`."""
        if not _can(query) or not single_head_attention.fits(query, key):
            return PLAIN.attend_wide(query, key, value)
        return single_head_attention.attend_wide(query, key, value)

    def attend_along_time(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """See `Operations`."""
        if not _can(query) or not self._offered("_attend_along_time") or not has_room(query, heads):
            return PLAIN.attend_along_time(query, key, value, heads)
        return attend_along_time(query, key, value, heads)
