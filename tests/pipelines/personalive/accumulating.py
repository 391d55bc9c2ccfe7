"""PyTorch's operations but for one: products are added to where a sum lies, as on a GPU."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from personalive.pipelines.personalive.kernels.operations import PlainOperations


class Accumulating(PlainOperations):
    accumulates = True

    @override
    def accumulate(self, total: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        total.view(-1, total.shape[-1]).addmm_(values.flatten(0, -2), weight.T)
        return total
