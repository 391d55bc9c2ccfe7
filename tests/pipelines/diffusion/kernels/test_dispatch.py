from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

from personalive.pipelines.diffusion.kernels.autotuned_ops import AutotunedOperations
from personalive.pipelines.diffusion.kernels.dispatch import select_operations
from personalive.pipelines.diffusion.kernels.operations import PLAIN_OPERATIONS

CUDA = torch.device("cuda")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def run(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_a_gpu_operations_are_pytorchs() -> None:
    assert select_operations(torch.device("cpu")) is PLAIN_OPERATIONS


@pytest.mark.slow
def test_without_a_gpu_triton_is_not_asked_though_it_may_be_there() -> None:
    run(
        "import sys, torch\n"
        "from personalive.pipelines.diffusion import pipeline\n"
        "from personalive.pipelines.diffusion.sampling import engine\n"
        "from personalive.pipelines.diffusion.kernels.dispatch import select_operations\n"
        "select_operations(torch.device('cpu'))\n"
        "assert 'triton' not in sys.modules\n"
    )


@pytest.mark.slow
def test_without_triton_the_pipeline_is_there_and_operations_are_pytorchs() -> None:
    run(
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from unittest import mock\n"
        "from personalive.pipelines.diffusion import pipeline\n"
        "from personalive.pipelines.diffusion.sampling import engine\n"
        "from personalive.pipelines.diffusion.kernels.dispatch import select_operations\n"
        "from personalive.pipelines.diffusion.kernels.operations import PLAIN_OPERATIONS\n"
        "with mock.patch('torch.cuda.get_device_capability', return_value=(9, 0)):\n"
        "    assert select_operations(torch.device('cuda')) is PLAIN_OPERATIONS\n"
    )


@pytest.mark.gpu
@needs_cuda
def test_where_triton_does_not_work_all_is_pytorchs_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fused = pytest.importorskip("personalive.pipelines.diffusion.kernels.triton_ops")
    assert isinstance(select_operations(CUDA), AutotunedOperations)

    def refuse(*_: object) -> None:
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(fused, "group_norm", refuse)
    with caplog.at_level(logging.WARNING):
        assert select_operations(CUDA) is PLAIN_OPERATIONS
    assert "no C compiler" in caplog.text
