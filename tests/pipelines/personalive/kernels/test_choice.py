from __future__ import annotations

import pytest
import torch

from personalive.pipelines.personalive.kernels.choice import fastest
from personalive.pipelines.personalive.kernels.operations import PLAIN


def test_without_a_gpu_operations_are_pytorchs() -> None:
    assert fastest(torch.device("cpu")) is PLAIN


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_that_cannot_make_gated_products_keeps_the_other_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fused = pytest.importorskip("personalive.pipelines.personalive.kernels.fused")
    assert fastest(torch.device("cuda")).pairs

    def refuse(*_: object) -> None:
        raise RuntimeError("out of resource")

    monkeypatch.setattr(fused, "gated_product", refuse)
    operations = fastest(torch.device("cuda"))
    assert isinstance(operations, fused.TritonOperations)
    assert not operations.pairs
