"""PyTorch's operations, arranged to add products to where a sum lies, as those of a GPU are."""

from __future__ import annotations

from personalive.pipelines.diffusion.kernels.operations import Operations


class Accumulating(Operations):
    fuses_residual_matmul = True
