from __future__ import annotations

import pytest
import torch

from personalive.pipelines.personalive.speed.memory import let_segments_grow

GPU = torch.device("cuda")


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What PyTorch's allocator is told."""
    told: list[str] = []
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", told.append, raising=False)
    return told


def test_on_a_gpu_segments_grow(settings: list[str]) -> None:
    let_segments_grow(GPU)
    assert settings == ["expandable_segments:True"]


def test_elsewhere_nothing_is_changed(settings: list[str]) -> None:
    let_segments_grow(torch.device("cpu"))
    assert settings == []


def test_an_older_pytorch_is_told_by_the_name_it_knows(
    settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch._C, "_accelerator_setAllocatorSettings")
    monkeypatch.setattr(torch.cuda.memory, "_set_allocator_settings", settings.append)
    let_segments_grow(GPU)
    assert settings == ["expandable_segments:True"]


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_the_environment_decides(settings: list[str], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:128")
    let_segments_grow(GPU)
    assert settings == []


def test_a_pytorch_that_cannot_goes_on(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise RuntimeError("no such setting")

    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", refuse)
    let_segments_grow(GPU)
    assert settings == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_a_gpu_holds_grows_in_one_piece() -> None:
    torch.cuda.empty_cache()  # other tests' memory, which was taken otherwise
    let_segments_grow(GPU)
    kept = [torch.empty(64 << 20, device=GPU) for _ in range(3)]
    segments = [segment for segment in torch.cuda.memory_snapshot() if segment.get("is_expandable")]
    assert segments
    assert len(kept) == 3
