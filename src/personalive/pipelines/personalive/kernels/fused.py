"""`Operations` by the Triton kernels. Importing this needs Triton, which comes with PyTorch for CUDA."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from personalive.pipelines.personalive.kernels.eight_bits import quantized
from personalive.pipelines.personalive.kernels.norms import group_norm, layer_norm
from personalive.pipelines.personalive.kernels.operations import PLAIN, Normed
from personalive.pipelines.personalive.kernels.tokens import MOST_FRAMES, attend_along_time, gated
from personalive.pipelines.personalive.kernels.tuning import INTERPRETED


def _can(tensor: Tensor) -> bool:
    return tensor.is_cuda or INTERPRETED


class TritonOperations:
    """One kernel, or for group norm three, where PyTorch has more and keeps its results in between.

    What a kernel cannot do (tensors on a CPU, more than 32 frames, norms without weights) is left to PyTorch.
    """

    def group_norm(
        self, x: Tensor, norm: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        """See `Operations`."""
        if not _can(x) or norm.weight is None:
            return PLAIN.group_norm(x, norm, silu=silu, shift=shift)
        out: Tensor = group_norm(x, norm.weight, norm.bias, norm.num_groups, norm.eps, silu, shift)
        return out

    def layer_norm(
        self, tokens: Tensor, norm: nn.LayerNorm, update: Tensor | None = None, shift: Tensor | None = None
    ) -> Normed:
        """See `Operations`."""
        if not _can(tokens) or norm.weight is None:
            return PLAIN.layer_norm(tokens, norm, update, shift)
        total, normed = layer_norm(tokens, norm.weight, norm.bias, norm.eps, update, shift)
        return Normed(tokens if update is None and shift is None else total, normed)

    def gated(self, projected: Tensor) -> Tensor:
        """See `Operations`."""
        if not _can(projected):
            return PLAIN.gated(projected)
        out: Tensor = gated(projected)
        return out

    def attend_along_time(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """See `Operations`."""
        if not _can(query) or query.shape[1] > MOST_FRAMES or query.dtype == torch.float64:
            return PLAIN.attend_along_time(query, key, value, heads)
        out: Tensor = attend_along_time(query, key, value, heads)
        return out

    def quantized(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """See `Operations`."""
        if not _can(values):
            return PLAIN.quantized(values)
        codes, scale = quantized(values)
        return codes, scale
