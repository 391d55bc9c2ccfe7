from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from personalive.pipelines.personalive.kernels.choice import fastest
from personalive.pipelines.personalive.kernels.families import offered
from personalive.pipelines.personalive.kernels.operations import PLAIN


def run(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_a_gpu_operations_are_pytorchs() -> None:
    assert fastest(torch.device("cpu")) is PLAIN


def test_without_a_gpu_triton_is_not_asked_though_it_may_be_there() -> None:
    run(
        "import sys, torch\n"
        "from personalive.pipelines.personalive import engine, pipeline\n"
        "from personalive.pipelines.personalive.kernels.choice import fastest\n"
        "fastest(torch.device('cpu'))\n"
        "assert 'triton' not in sys.modules\n"
    )


def test_without_triton_the_pipeline_is_there_and_operations_are_pytorchs() -> None:
    run(
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from unittest import mock\n"
        "from personalive.pipelines.personalive import engine, pipeline\n"
        "from personalive.pipelines.personalive.kernels.choice import fastest\n"
        "from personalive.pipelines.personalive.kernels.operations import PLAIN\n"
        "with mock.patch('torch.cuda.get_device_capability', return_value=(9, 0)):\n"
        "    assert fastest(torch.device('cuda')) is PLAIN\n"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_has_gated_products_in_one_kernel_where_its_family_is_offered_it() -> None:
    pytest.importorskip("triton")
    assert fastest(torch.device("cuda")).pairs == offered(
        "_gated_product", torch.cuda.get_device_capability()
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_that_cannot_make_gated_products_keeps_the_other_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fused = pytest.importorskip("personalive.pipelines.personalive.kernels.fused")

    def refuse(*_: object) -> None:
        raise RuntimeError("out of resource")

    monkeypatch.setattr(fused, "gated_product", refuse)
    operations = fastest(torch.device("cuda"))
    assert isinstance(operations, fused.TritonOperations)
    assert not operations.pairs
