"""`Operations` with the Triton kernels. Importing this needs Triton, which comes with PyTorch for CUDA."""

from __future__ import annotations

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
    PLAIN_OPERATIONS,
    ConvLayer,
    Kernels,
    LayerNormOutput,
    LinearGegluKernel,
    PlainOperations,
    TensorWithStats,
)
from personalive.pipelines.diffusion.kernels.token_ops import (
    concat_kv,
    geglu,
    is_temporal_attention_supported,
    temporal_attention,
)


def _is_supported(tensor: Tensor) -> bool:
    return tensor.is_cuda or IS_INTERPRETED


class TritonOperations(PlainOperations):
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

    def group_norm(
        self, x: TensorWithStats, norm: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        """See `Operations`."""
        if not _is_supported(x.tensor) or norm.weight is None:
            return PLAIN_OPERATIONS.group_norm(x, norm, silu=silu, shift=shift)
        gain = output_gain(norm)
        if gain is not None and not self._codes:
            return PLAIN_OPERATIONS.group_norm(x, norm, silu=silu, shift=shift)
        return group_norm(
            x.tensor, x.stats, norm.weight, norm.bias, norm.num_groups, norm.eps, silu, shift, gain
        )

    def add_with_stats(self, x: Tensor, update: Tensor | None, bias: Tensor | None = None) -> TensorWithStats:
        """See `Operations`."""
        if not _is_supported(x) or (update is None and bias is None):
            return PLAIN_OPERATIONS.add_with_stats(x, update, bias)
        return TensorWithStats(*add_with_stats(x, update, bias))

    def conv(self, x: Tensor, layer: ConvLayer) -> tuple[Tensor, Tensor | None]:
        """See `Operations`. PyTorch would add the bias in a separate pass, so it is left to the next operation."""
        if isinstance(layer, Float8Convolution):
            for form in self.fp8_conv_kernels(x, layer).values():
                return form(), layer.bias
            return PLAIN_OPERATIONS.conv(x, layer)
        if layer.bias is None or not isinstance(layer.padding, tuple):
            return PLAIN_OPERATIONS.conv(x, layer)
        if isinstance(layer, nn.ConvTranspose2d):
            return F.conv_transpose2d(x, layer.weight, None, layer.stride, layer.padding), layer.bias
        if layer.kernel_size == (1, 1) and layer.stride == (1, 1):
            # A matrix product adds the bias at no cost.
            pixels = F.linear(x.flatten(2).transpose(1, 2), layer.weight.flatten(1), layer.bias)
            return pixels.transpose(1, 2).unflatten(2, x.shape[2:]), None
        return F.conv2d(x, layer.weight, None, layer.stride, layer.padding), layer.bias

    def fp8_conv_kernels(self, codes: Tensor, layer: Float8Convolution) -> Kernels:
        """Return the kernels that compute such a convolution on this device, without its bias."""
        found: Kernels = {}
        weight, factors, dtype = layer.weight, layer.factors, layer.dtype
        if self._supports_codes(codes, "_fp8_conv_kernel") and fp8_convolution.is_supported(codes, weight):
            if fp8_convolution.is_wide_supported(weight):
                found["wide descriptors"] = lambda: fp8_convolution.fp8_conv(
                    codes, weight, factors, dtype, True
                )
            found["descriptors"] = lambda: fp8_convolution.fp8_conv(codes, weight, factors, dtype, False)
        if self._supports_codes(codes, "_fp8_conv_pointer_kernel") and fp8_convolution_pointers.is_supported(
            codes, weight
        ):
            found["pointers"] = lambda: fp8_convolution_pointers.fp8_conv_pointers(
                codes, weight, factors, dtype
            )
        return found

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
            return PLAIN_OPERATIONS.conv_relu(x, layer, residual)
        how = (layer.stride, padding, layer.dilation, layer.groups)
        if residual is None:
            return torch.cudnn_convolution_relu(x, layer.weight, layer.bias, *how)
        return torch.cudnn_convolution_add_relu(x, layer.weight, residual, 1.0, layer.bias, *how)

    def batch_norm_relu(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """See `Operations`."""
        mean, variance = norm.running_mean, norm.running_var
        if not _is_supported(x) or mean is None or variance is None or norm.weight is None:
            return PLAIN_OPERATIONS.batch_norm_relu(x, norm)
        return batch_norm_relu(x, mean, variance, norm.weight, norm.bias, norm.eps)

    def concat_kv(self, own: Tensor, shared: Tensor) -> Tensor:
        """See `Operations`."""
        if not _is_supported(own):
            return PLAIN_OPERATIONS.concat_kv(own, shared)
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
        if not _is_supported(tokens) or norm.weight is None:
            return PLAIN_OPERATIONS.layer_norm(tokens, norm, update, shift, position_code, bias)
        gain = output_gain(norm)
        if gain is not None and not self._codes:
            return PLAIN_OPERATIONS.layer_norm(tokens, norm, update, shift, position_code, bias)
        total, normed = layer_norm(
            tokens, norm.weight, norm.bias, norm.eps, update, shift, position_code, bias, gain
        )
        return LayerNormOutput(total if len(total) else tokens, normed)

    def geglu(self, projected: Tensor) -> Tensor:
        """See `Operations`."""
        if not _is_supported(projected):
            return PLAIN_OPERATIONS.geglu(projected)
        return geglu(projected)

    def linear_geglu(self, tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """See `Operations`."""
        for form in self.linear_geglu_kernels(tokens, weight).values():
            return form(tokens, weight, bias)
        return PLAIN_OPERATIONS.linear_geglu(tokens, weight, bias)

    def linear_geglu_kernels(self, tokens: Tensor, weight: Tensor) -> dict[str, LinearGegluKernel]:
        """Return the kernels for such a linear and GEGLU on this device, by name, probably fastest first."""
        found: dict[str, LinearGegluKernel] = {}
        if (
            _is_supported(tokens)
            and self._has_kernel("_linear_geglu_kernel")
            and linear_geglu.is_supported(tokens, weight)
        ):
            found["descriptors"] = linear_geglu.linear_geglu
        if (
            _is_supported(tokens)
            and self._has_kernel("_linear_geglu_pointers_kernel")
            and linear_geglu_pointers.is_supported(tokens, weight)
        ):
            found["pointers"] = linear_geglu_pointers.linear_geglu_pointers
        return found

    def geglu_fp8(self, codes: Tensor, layer: Float8GEGLU) -> Tensor:
        """See `Operations`."""
        for form in self.fp8_geglu_kernels(codes, layer).values():
            return form()
        return PLAIN_OPERATIONS.geglu_fp8(codes, layer)

    def fp8_geglu_kernels(self, codes: Tensor, layer: Float8GEGLU) -> Kernels:
        """Return the kernels for `geglu_fp8` on this device."""
        if not self._codes or layer.bias is None:
            return {}
        given = (codes, layer.weight, layer.bias, layer.factors, layer.onward)
        forms = self.linear_geglu_kernels(codes, layer.weight)
        return {name: lambda form=form: form(*given) for name, form in forms.items()}  # type: ignore[misc]

    def prefers_interleaved(self, rows: int, linear: nn.Linear) -> bool:
        """See `Operations`. True if there is a kernel for it."""
        del rows
        return bool(self.linear_geglu_kernels(linear.weight, linear.weight))

    def single_head_attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Operations`."""
        if not _is_supported(query) or not single_head_attention.is_supported(query, key):
            return PLAIN_OPERATIONS.single_head_attention(query, key, value)
        return single_head_attention.single_head_attention(query, key, value)

    def temporal_attention(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """See `Operations`."""
        if (
            not _is_supported(query)
            or not self._has_kernel("_temporal_attention_kernel")
            or not is_temporal_attention_supported(query, heads)
        ):
            return PLAIN_OPERATIONS.temporal_attention(query, key, value, heads)
        return temporal_attention(query, key, value, heads)
