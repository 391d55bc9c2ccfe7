"""The operations as PyTorch and as our kernels compute them; the latter on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass

import pytest
import torch

from personalive.pipelines.personalive.kernels.operations import PLAIN, Operations

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@dataclass(frozen=True)
class Way:
    """A way to compute the operations, and where."""

    operations: Operations
    device: torch.device


@pytest.fixture(params=["plain", pytest.param("triton", marks=pytest.mark.gpu)])
def way(request: pytest.FixtureRequest) -> Way:
    if request.param == "plain":
        return Way(PLAIN, torch.device("cpu"))
    if importlib.util.find_spec("triton") is None or not (torch.cuda.is_available() or INTERPRETED):
        pytest.skip("needs Triton, and a CUDA device or TRITON_INTERPRET=1")
    from personalive.pipelines.personalive.kernels.fused import TritonOperations

    return Way(TritonOperations(), torch.device("cuda" if torch.cuda.is_available() else "cpu"))
