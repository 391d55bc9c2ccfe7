from __future__ import annotations

import pytest
import torch

from personalive.errors import PipelineUnavailableError
from personalive.pipelines.personalive.devices import device_of, dtype_of


def test_the_cpu_is_always_there() -> None:
    assert device_of("cpu") == torch.device("cpu")


def test_auto_takes_a_gpu_only_where_there_is_one() -> None:
    expected = {True: ("cuda",), False: ("mps", "cpu")}[torch.cuda.is_available()]
    assert device_of("auto").type in expected


@pytest.mark.parametrize("name", ["cuda:99", "mps"])
def test_a_device_that_is_not_there_is_refused_with_what_to_do(name: str) -> None:
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(
        PipelineUnavailableError, match=r"There is no .* here.*Take another device, or auto\."
    ):
        device_of(name)


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.float16),
        ("float32", "cuda", torch.float32),
        ("bfloat16", "cpu", torch.bfloat16),
        ("float16", "cpu", torch.float16),
    ],
)
def test_types_go_by_name_and_auto_by_device(name: str, device: str, dtype: torch.dtype) -> None:
    assert dtype_of(name, torch.device(device)) == dtype
