from __future__ import annotations

import torch

from personalive.pipelines.personalive.kernels.choice import fastest
from personalive.pipelines.personalive.kernels.operations import PLAIN


def test_without_a_gpu_operations_are_pytorchs() -> None:
    assert fastest(torch.device("cpu")) is PLAIN
