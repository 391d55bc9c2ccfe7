from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from personalive.pipelines.diffusion.memory.allocator import (
    enable_expandable_segments,
    plannable_bytes,
    run_with_memory_limit,
)

GPU = torch.device("cuda")


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What PyTorch's allocator is told."""
    told: list[str] = []
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", told.append, raising=False)
    monkeypatch.setattr(torch, "empty", lambda *size, **how: None)
    return told


@pytest.mark.parametrize("way", ["raises", "warns"])
def test_where_the_first_allocation_fails_it_is_taken_back(
    settings: list[str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    def refuse(*size: int, **how: object) -> None:
        if way == "raises":
            raise RuntimeError("CUDA driver error: operation not supported")
        warnings.warn("expandable_segments not supported on this platform", UserWarning, stacklevel=1)

    monkeypatch.setattr(torch, "empty", refuse)
    enable_expandable_segments(GPU)
    assert settings == ["expandable_segments:True", "expandable_segments:False"]


def test_another_warning_is_passed_on_and_changes_nothing(
    settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn(*size: int, **how: object) -> None:
        warnings.warn("this GPU is old", UserWarning, stacklevel=1)

    monkeypatch.setattr(torch, "empty", warn)
    with pytest.warns(UserWarning, match="this GPU is old"):
        enable_expandable_segments(GPU)
    assert settings == ["expandable_segments:True"]


def gpu_with(
    monkeypatch: pytest.MonkeyPatch, *, free: int, reserved: int, allocated: int, share: float
) -> None:
    """Have PyTorch tell of a GPU of 10,000 MiB."""
    facts = {"mem_get_info": (free << 20, 10_000 << 20), "memory_reserved": reserved << 20}
    facts |= {"memory_allocated": allocated << 20, "get_per_process_memory_fraction": share}
    facts |= {"get_device_properties": SimpleNamespace(total_memory=10_000 << 20)}
    for name, fact in facts.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, fact=fact: fact, raising=False)


@pytest.mark.parametrize(
    ("free", "reserved", "allocated", "share", "expected"),
    [
        (9000, 0, 0, 1.0, 8700),
        (8000, 1000, 400, 1.0, 8300),
        (9000, 0, 0, 0.5, 4700),
        (9000, 1000, 400, 0.5, 4300),
        (100, 0, 0, 1.0, 0),
    ],
)
def test_free_memory_counts_what_is_kept_unused_and_the_processs_limit(
    monkeypatch: pytest.MonkeyPatch, free: int, reserved: int, allocated: int, share: float, expected: int
) -> None:
    gpu_with(monkeypatch, free=free, reserved=reserved, allocated=allocated, share=share)
    assert plannable_bytes(GPU) >> 20 == expected


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The shares of a GPU's memory that this process allows itself; 0.9 are allowed before."""
    told: list[float] = []
    gpu_with(monkeypatch, free=9000, reserved=1000, allocated=400, share=0.9)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: told.append(share)
    )
    return told


@pytest.mark.parametrize(("mebibytes", "share"), [(2000, 0.3), (9000, 0.9)])
def test_what_runs_sparingly_takes_so_much_and_no_more(
    limits: list[float], mebibytes: int, share: float
) -> None:
    assert run_with_memory_limit(GPU, mebibytes << 20, lambda: list(limits)) == [share]
    assert limits == [share, 0.9]


def test_what_needs_more_runs_again_without_a_limit(limits: list[float]) -> None:
    def run() -> str:
        if len(limits) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return "done"

    assert run_with_memory_limit(GPU, 1 << 20, run) == "done"
    assert limits[-1] == 0.9


def test_another_error_is_raised_and_the_limit_taken_back(limits: list[float]) -> None:
    def run() -> None:
        raise RuntimeError("no such shape")

    with pytest.raises(RuntimeError, match="no such shape"):
        run_with_memory_limit(GPU, 1 << 20, run)
    assert limits[-1] == 0.9


def test_elsewhere_nothing_is_limited(limits: list[float]) -> None:
    assert run_with_memory_limit(torch.device("cpu"), 0, lambda: "done") == "done"
    assert limits == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_float32_convolution_takes_no_workspace_of_many_gigabytes() -> None:
    x = torch.zeros(1, 256, 192, 128, device=GPU)
    layer = torch.nn.Conv2d(256, 512, 3, padding=1, device=GPU)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        run_with_memory_limit(GPU, 2 << 30, lambda: layer(x))
    assert torch.cuda.max_memory_allocated() < 4 << 30


def test_on_a_gpu_segments_grow(settings: list[str]) -> None:
    enable_expandable_segments(GPU)
    assert settings == ["expandable_segments:True"]


def test_elsewhere_nothing_is_changed(settings: list[str]) -> None:
    enable_expandable_segments(torch.device("cpu"))
    assert settings == []


def test_an_older_pytorch_is_told_by_the_name_it_knows(
    settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch._C, "_accelerator_setAllocatorSettings")
    monkeypatch.setattr(torch.cuda.memory, "_set_allocator_settings", settings.append)
    enable_expandable_segments(GPU)
    assert settings == ["expandable_segments:True"]


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_the_environment_decides(settings: list[str], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "max_split_size_mb:128")
    enable_expandable_segments(GPU)
    assert settings == []


def test_a_pytorch_that_cannot_goes_on(settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise RuntimeError("no such setting")

    monkeypatch.setattr(torch._C, "_accelerator_setAllocatorSettings", refuse)
    enable_expandable_segments(GPU)
    assert settings == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_a_gpu_holds_grows_in_one_piece() -> None:
    torch.cuda.empty_cache()  # other tests' memory, which was taken otherwise
    enable_expandable_segments(GPU)
    kept = [torch.empty(64 << 20, device=GPU) for _ in range(3)]
    segments = [segment for segment in torch.cuda.memory_snapshot() if segment.get("is_expandable")]
    assert segments
    assert len(kept) == 3
