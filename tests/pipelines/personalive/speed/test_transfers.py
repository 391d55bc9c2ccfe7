from __future__ import annotations

import pytest
import torch

from personalive.pipelines.personalive.speed.transfers import to_device, to_host


def devices() -> list[object]:
    return ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("name", devices())
def test_there_and_back_again(name: str) -> None:
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    values = torch.arange(12, dtype=torch.uint8).view(3, 4)
    there = to_device(values, name)
    assert there.device.type == name
    assert to_device(there, name) is there
    back = to_host(there)()
    assert back.device.type == "cpu"
    assert torch.equal(back, values)
