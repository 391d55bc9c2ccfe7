"""`Operations` with the Triton kernels. Importing this needs Triton, which comes with PyTorch for CUDA."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

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
from personalive.pipelines.diffusion.kernels.autotune import IS_INTERPRETED
from personalive.pipelines.diffusion.kernels.batch_norm import batch_norm_relu
from personalive.pipelines.diffusion.kernels.fp8 import (
    FLOAT8,
    Float8Convolution,
    Float8GEGLU,
    output_gain,
)
from personalive.pipelines.diffusion.kernels.gpu_support import unsupported_kernels
from personalive.pipelines.diffusion.kernels.group_norm import add_with_stats, group_norm
from personalive.pipelines.diffusion.kernels.layer_norm import layer_norm
from personalive.pipelines.diffusion.kernels.operations import (
    ConvLayer,
    Kernels,
    LayerNormOutput,
    Operations,
    TensorWithStats,
)
from personalive.pipelines.diffusion.kernels.token_ops import (
    concat_kv,
    geglu,
    is_temporal_attention_supported,
    temporal_attention,
)

Result = TypeVar("Result")


def _is_supported(tensor: Tensor) -> bool:
    return tensor.is_cuda or IS_INTERPRETED


def _run_first(kernels: Kernels[Result], plain: Callable[[], Result]) -> Result:
    return next(iter(kernels.values()), plain)()


class TritonOperations(Operations):
    """Operations with fewer kernels than PyTorch's, and without its intermediate results.

    Group norm takes three kernels, attention in a wide head one between two products, all others one. PyTorch
    computes what a kernel does not support (tensors on a CPU, too many frames, norms without weights, this family
    of GPUs) and the operations that no kernel here surpasses.
    """

    fuses_residual_matmul = True

    def __init__(self, device: torch.device | None = None) -> None:
        # Computed in advance, since a compiler would trace a query for each tensor.
        gpu = torch.cuda.is_available()
        capability = torch.cuda.get_device_capability(device) if gpu else gpu_support.MIN_FLOAT8_CAPABILITY
        self._unsupported = unsupported_kernels(capability) if gpu else frozenset[str]()
        self._codes = capability >= gpu_support.MIN_FLOAT8_CAPABILITY

    def _has_kernel(self, kernel: str) -> bool:
        return kernel not in self._unsupported

    def _supports_norm(self, x: Tensor, norm: nn.GroupNorm | nn.LayerNorm) -> bool:
        return _is_supported(x) and norm.weight is not None and (self._codes or output_gain(norm) is None)

    def group_norm(
        self, x: TensorWithStats, norm: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        """See `Operations`."""
        if not self._supports_norm(x.tensor, norm):
            return super().group_norm(x, norm, silu=silu, shift=shift)
        how = (norm.num_groups, norm.eps, silu, shift, output_gain(norm))
        return group_norm(x.tensor, x.stats, norm.weight, norm.bias, *how)

    def add_with_stats(self, x: Tensor, update: Tensor | None, bias: Tensor | None = None) -> TensorWithStats:
        """See `Operations`."""
        if not _is_supported(x) or (update is None and bias is None):
            return super().add_with_stats(x, update, bias)
        return TensorWithStats(*add_with_stats(x, update, bias))

    def conv(self, x: Tensor, layer: ConvLayer) -> tuple[Tensor, Tensor | None]:
        """See `Operations`. PyTorch would add the bias in a separate pass, so it is left to the next operation."""
        if isinstance(layer, Float8Convolution):
            return _run_first(self.fp8_conv_kernels(x, layer), partial(super().conv, x, layer))
        if layer.bias is None or not isinstance(layer.padding, tuple):
            return super().conv(x, layer)
        if isinstance(layer, nn.ConvTranspose2d):
            return F.conv_transpose2d(x, layer.weight, None, layer.stride, layer.padding), layer.bias
        if layer.kernel_size == (1, 1) and layer.stride == (1, 1):
            # A matrix product adds the bias at no cost.
            pixels = F.linear(x.flatten(2).transpose(1, 2), layer.weight.flatten(1), layer.bias)
            return pixels.transpose(1, 2).unflatten(2, x.shape[2:]), None
        return F.conv2d(x, layer.weight, None, layer.stride, layer.padding), layer.bias

    def fp8_conv_kernels(
        self, codes: Tensor, layer: Float8Convolution
    ) -> Kernels[tuple[Tensor, Tensor | None]]:
        """See `Operations`."""
        found: Kernels[Tensor] = {}
        given = (codes, layer.weight, layer.factors, layer.dtype)
        if self._supports_codes(codes, "_fp8_conv_kernel") and fp8_convolution.is_supported(*given[:2]):
            if fp8_convolution.is_wide_supported(layer.weight):
                found["wide descriptors"] = partial(fp8_convolution.fp8_conv, *given, True)
            found["descriptors"] = partial(fp8_convolution.fp8_conv, *given, False)
        pointers = fp8_convolution_pointers
        if self._supports_codes(codes, "_fp8_conv_pointer_kernel") and pointers.is_supported(*given[:2]):
            found["pointers"] = partial(pointers.fp8_conv_pointers, *given)
        return {name: lambda kernel=kernel: (kernel(), layer.bias) for name, kernel in found.items()}  # type: ignore[misc]

    def _supports_codes(self, codes: Tensor, kernel: str) -> bool:
        return _is_supported(codes) and self._codes and self._has_kernel(kernel) and codes.dtype == FLOAT8

    def conv_relu(self, x: Tensor, layer: nn.Conv2d, residual: Tensor | None = None) -> Tensor:
        """See `Operations`. cuDNN adds bias and residual and applies ReLU before it writes."""
        padding = layer.padding
        if (
            not x.is_cuda
            or x.dtype != torch.float16
            or isinstance(padding, str)
            or torch.version.cuda is None
        ):
            return super().conv_relu(x, layer, residual)
        how = (layer.stride, padding, layer.dilation, layer.groups)
        if residual is None:
            return torch.cudnn_convolution_relu(x, layer.weight, layer.bias, *how)
        return torch.cudnn_convolution_add_relu(x, layer.weight, residual, 1.0, layer.bias, *how)

    def batch_norm_relu(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """See `Operations`."""
        mean, variance = norm.running_mean, norm.running_var
        if not _is_supported(x) or mean is None or variance is None or norm.weight is None:
            return super().batch_norm_relu(x, norm)
        return batch_norm_relu(x, mean, variance, norm.weight, norm.bias, norm.eps)

    def concat_kv(self, own: Tensor, shared: Tensor) -> Tensor:
        """See `Operations`."""
        if not _is_supported(own):
            return super().concat_kv(own, shared)
        return concat_kv(own, shared)

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
        added = (update, shift, position_code, bias)
        if not self._supports_norm(tokens, norm):
            return super().layer_norm(tokens, norm, *added)
        total, normed = layer_norm(tokens, norm.weight, norm.bias, norm.eps, *added, output_gain(norm))
        return LayerNormOutput(total if len(total) else tokens, normed)

    def geglu(self, projected: Tensor) -> Tensor:
        """See `Operations`."""
        if not _is_supported(projected):
            return super().geglu(projected)
        return geglu(projected)

    def linear_geglu(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See `Operations`."""
        kernels = self.linear_geglu_kernels(tokens, weight, bias)
        return _run_first(kernels, partial(super().linear_geglu, tokens, weight, bias))

    def linear_geglu_kernels(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Kernels[Tensor]:
        """See `Operations`."""
        return self._linear_geglu_kernels(tokens, weight, bias)

    def _linear_geglu_kernels(
        self, tokens: Tensor, weight: Tensor, bias: Tensor, *onward: Tensor | float
    ) -> Kernels[Tensor]:
        """Return the kernels for such a linear and GEGLU; for codes, `onward` are their factors and a gain."""
        if not _is_supported(tokens):
            return {}
        forms = {
            "descriptors": ("_linear_geglu_kernel", linear_geglu.is_supported, linear_geglu.linear_geglu),
            "pointers": (
                "_linear_geglu_pointers_kernel",
                linear_geglu_pointers.is_supported,
                linear_geglu_pointers.linear_geglu_pointers,
            ),
        }
        return {
            name: partial(form, tokens, weight, bias, *onward)  # type: ignore[arg-type]
            for name, (kernel, is_supported, form) in forms.items()
            if self._has_kernel(kernel) and is_supported(tokens, weight)
        }

    def geglu_fp8(self, codes: Tensor, layer: Float8GEGLU) -> Tensor:
        """See `Operations`."""
        return _run_first(self.geglu_fp8_kernels(codes, layer), partial(super().geglu_fp8, codes, layer))

    def geglu_fp8_kernels(self, codes: Tensor, layer: Float8GEGLU) -> Kernels[Tensor]:
        """See `Operations`."""
        if not self._codes or layer.bias is None:
            return {}
        return self._linear_geglu_kernels(codes, layer.weight, layer.bias, layer.factors, layer.onward)

    def prefers_interleaved(self, rows: int, linear: nn.Linear) -> bool:
        """See `Operations`. True if there is a kernel for it."""
        del rows
        return bool(self.linear_geglu_kernels(linear.weight, linear.weight, linear.bias))

    def single_head_attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Operations`."""
        if not _is_supported(query) or not single_head_attention.is_supported(query, key):
            return super().single_head_attention(query, key, value)
        return single_head_attention.single_head_attention(query, key, value)

    def temporal_attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """See `Operations`."""
        if (
            not _is_supported(query)
            or not self._has_kernel("_temporal_attention_kernel")
            or not is_temporal_attention_supported(query, heads)
        ):
            return super().temporal_attention(query, key, value, heads)
        return temporal_attention(query, key, value, heads)
