"""The operations as PyTorch and as our kernels compute them; the latter on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import importlib.util
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from personalive.pipelines.diffusion.kernels.gpu_support import MIN_FLOAT8_CAPABILITY
from personalive.pipelines.diffusion.kernels.operations import PLAIN_OPERATIONS, Operations
from tests.pipelines.diffusion.kernels.covering import covering

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Way:
    """A way to compute the operations, and where."""

    operations: Operations
    device: torch.device

    @property
    def interpreted(self) -> bool:
        """Whether in Triton's interpreter, which rounds to small types otherwise than a GPU."""
        return INTERPRETED and self.operations is not PLAIN_OPERATIONS

    def require_products(self, dtype: torch.dtype) -> None:
        """Skip the test where tiles of this type cannot be multiplied."""
        if self.interpreted and dtype == torch.bfloat16:
            pytest.skip("Triton's interpreter multiplies no tiles of bfloat16")

    def require_codes(self) -> None:
        """Skip the test on a GPU without 8-bit floats."""
        if self.device.type == "cuda" and torch.cuda.get_device_capability() < MIN_FLOAT8_CAPABILITY:
            pytest.skip("needs a GPU that multiplies 8-bit floats")


@pytest.fixture(params=["plain", pytest.param("triton", marks=pytest.mark.gpu)])
def way(request: pytest.FixtureRequest) -> Way:
    if request.param == "plain":
        return Way(PLAIN_OPERATIONS, torch.device("cpu"))
    on_gpu = torch.cuda.is_available() and not INTERPRETED
    if importlib.util.find_spec("triton") is None or not (on_gpu or INTERPRETED):
        pytest.skip("needs Triton, and a CUDA device or TRITON_INTERPRET=1")
    from personalive.pipelines.diffusion.kernels.triton_ops import TritonOperations

    return Way(TritonOperations(), torch.device("cuda" if on_gpu else "cpu"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run fewer of a test's combinations of parameters where the interpreter runs them, which takes seconds each.

    Every value is in those that are not slow, and every two values meet in those that are left.
    """
    if not INTERPRETED:
        return
    tests = defaultdict[str, list[pytest.Function]](list)
    for item in items:
        here = item.path.is_relative_to(_HERE) and item.get_closest_marker("gpu") is not None
        if here and isinstance(item, pytest.Function) and hasattr(item, "callspec"):
            tests[item.nodeid.partition("[")[0]].append(item)
    left_out = set[pytest.Item]()
    for every in tests.values():
        values = [{name: repr(value) for name, value in item.callspec.params.items()} for item in every]
        quick, paired = set(covering(values, together=1)), set(covering(values, together=2))
        for place, item in enumerate(every):
            if place not in quick | paired:
                left_out.add(item)
            elif place not in quick:
                item.add_marker(pytest.mark.slow)
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]
