from __future__ import annotations

import logging

import pytest
import torch

from personalive.pipelines.personalive.kernels.choice import measured
from personalive.pipelines.personalive.kernels.measured import MeasuredOperations
from personalive.pipelines.personalive.kernels.operations import PLAIN

CUDA = torch.device("cuda")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_without_a_gpu_operations_are_pytorchs() -> None:
    assert measured(torch.device("cpu")) is PLAIN


@pytest.mark.gpu
@needs_cuda
def test_where_triton_does_not_work_all_is_pytorchs_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fused = pytest.importorskip("personalive.pipelines.personalive.kernels.fused")
    assert isinstance(measured(CUDA), MeasuredOperations)

    def refuse(*_: object) -> None:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(fused, "group_norm", refuse)
    with caplog.at_level(logging.WARNING):
        assert measured(CUDA) is PLAIN
    assert "no C compiler" in caplog.text
