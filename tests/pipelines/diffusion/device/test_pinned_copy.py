from __future__ import annotations

import pytest
import torch

from personalive.pipelines.diffusion.device import pinned_memory
from personalive.pipelines.diffusion.device.pinned_copy import to_device, to_host
from personalive.pipelines.diffusion.device.pinned_memory import allocate_host_tensor


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


def test_without_page_locked_memory_it_is_ordinary(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*size: object, pin_memory: bool = False, **how: object) -> torch.Tensor:
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return empty(*size, **how)  # type: ignore[call-overload, no-any-return]

    empty = torch.empty
    monkeypatch.setattr(torch, "empty", refuse)
    monkeypatch.setattr(pinned_memory._PinningFailure, "logged", False)
    for _ in range(2):
        memory = allocate_host_tensor((2, 3), torch.float16, pinned=True)
        assert (memory.shape, memory.dtype) == ((2, 3), torch.float16)
    (said,) = caplog.messages
    assert said.startswith("memory cannot be page-locked")
