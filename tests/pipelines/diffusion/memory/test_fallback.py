from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch

from personalive.errors import InputError, PipelineUnavailableError
from personalive.pipelines.diffusion.memory import fallback
from personalive.pipelines.diffusion.memory.fallback import build_with_fallback
from personalive.pipelines.diffusion.memory.plan import MemoryPlan
from tests.pipelines.diffusion.memory.test_planner import found

CUDA = torch.device("cuda")


class Held:
    """What is made on the way, and must be gone before the next attempt."""


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU with room for every plan, where nothing has to be given back."""
    monkeypatch.setattr(fallback, "plannable_bytes", lambda device: 20 * 10**9)
    monkeypatch.setattr(fallback, "empty_cache", lambda device: gc.collect())


def failing(times: int, error: Callable[[], Exception]) -> tuple[list[str], Callable[[MemoryPlan], str]]:
    tried: list[str] = []
    alive: list[weakref.ref[Held]] = []

    def make(plan: MemoryPlan) -> str:
        assert all(ref() is None for ref in alive)
        held = Held()
        alive.append(weakref.ref(held))
        tried.append(plan.name)
        if len(tried) <= times:
            raise error()
        return plan.name

    return tried, make


@pytest.mark.usefixtures("free")
@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
@pytest.mark.parametrize("times", [0, 1, 3])
def test_where_memory_runs_out_the_next_plan_is_tried_with_nothing_left_of_the_one_before(
    times: int, error: Callable[[], Exception]
) -> None:
    names = [plan.name for plan in found()]
    tried, make = failing(times, error)
    assert build_with_fallback(CUDA, found(), "auto", make) == names[times]
    assert tried == names[: times + 1]


@pytest.mark.usefixtures("free")
def test_where_it_runs_out_with_all_of_them_one_sentence_says_so() -> None:
    tried, make = failing(99, lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."))
    with pytest.raises(PipelineUnavailableError, match=r"too little GPU memory.*\(CUDA out of memory\)"):
        build_with_fallback(CUDA, found(), "auto", make)
    assert tried == [plan.name for plan in found()]


def test_where_none_fits_none_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallback, "plannable_bytes", lambda device: 10**9)
    monkeypatch.setattr(fallback, "empty_cache", lambda device: None)
    tried, make = failing(0, ValueError)
    with pytest.raises(
        PipelineUnavailableError, match=r"2.9 GB are needed as set and 1.0 GB are free\. Close"
    ):
        build_with_fallback(CUDA, found(), "auto", make)
    assert tried == []


@pytest.mark.usefixtures("free")
def test_a_forced_plan_is_the_only_one_and_other_errors_are_passed_on() -> None:
    tried, make = failing(1, lambda: torch.OutOfMemoryError("full"))
    with pytest.raises(PipelineUnavailableError, match="too little GPU memory"):
        build_with_fallback(CUDA, found(), "on", make)
    assert tried == ["on"]
    for error in (InputError("no"), RuntimeError("CUDA error: an illegal memory access was encountered")):
        tried, make = failing(1, lambda error=error: error)  # type: ignore[misc]
        with pytest.raises(type(error)):
            build_with_fallback(CUDA, found(), "auto", make)
        assert tried == ["off"]


def test_elsewhere_than_on_cuda_nothing_is_asked_of_the_device() -> None:
    assert build_with_fallback(torch.device("cpu"), found(), "auto", lambda plan: plan.name) == "off"
    assert build_with_fallback(torch.device("cpu"), found(), "stream", lambda plan: plan.name) == "stream"
