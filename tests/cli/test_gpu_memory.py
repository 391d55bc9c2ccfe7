from __future__ import annotations

from dataclasses import replace

import pytest

from personalive.cli.gpu_info import GpuInfo, TorchInfo
from personalive.cli.gpu_memory import check_memory, without_cuda_context
from personalive.cli.memory_plans import count_memory_plans, parse_memory_plan
from personalive.pipelines.diffusion.memory.plan import MemoryPlan

GIB = 2**30


@pytest.fixture(scope="module")
def plans() -> tuple[MemoryPlan, ...]:
    """As PyTorch's process counts them."""
    return tuple(parse_memory_plan(each) for each in count_memory_plans())


@pytest.mark.parametrize(
    ("total", "name"),
    [(4, "least"), (6, "most"), (8, "on"), (11, "off"), (12, "off"), (16, "off"), (24, "off")],
)
def test_each_card_has_its_plan(plans: tuple[MemoryPlan, ...], total: int, name: str) -> None:
    check = check_memory("GPU", GpuInfo("RTX", total=total * GIB), TorchInfo(plans=plans))
    assert check is not None
    plan = next(plan for plan in plans if plan.name == name)
    assert check.detail.startswith(f"{total} GB card: {plan.description} (")
    assert check.detail.endswith(f"low_vram={name})")
    assert check.ok is (True if name == "off" else None)
    assert check.remedy is None


def test_what_is_free_decides_to_the_byte(plans: tuple[MemoryPlan, ...]) -> None:
    for plan, leaner in zip(without_cuda_context(plans), [*plans[1:], None], strict=True):
        for free, taken in ((plan.need, plan), (plan.need - 1, leaner)):
            check = check_memory("GPU", GpuInfo("RTX", total=24 * GIB, free=free), TorchInfo(plans=plans))
            assert check is not None
            assert (f"low_vram={taken.name})" if taken else "too little GPU memory") in check.detail


def test_too_little_for_anything_is_a_problem_with_a_way_out(plans: tuple[MemoryPlan, ...]) -> None:
    check = check_memory("GPU", GpuInfo("RTX", total=8 * GIB, free=2 * 10**9), TorchInfo(plans=plans))
    assert check is not None
    assert check.ok is False
    assert (
        check.detail == "There is too little GPU memory: some 3.6 GB are needed as set and 2.0 GB are free."
    )
    assert "--set height=384" in (check.remedy or "")


@pytest.mark.parametrize(
    ("torch", "why"),
    [
        (None, "PyTorch is not installed"),
        (TorchInfo(error="ImportError: libcudart.so.13"), "ImportError: libcudart.so.13"),
        (TorchInfo(plans_error="OSError: disk full"), "OSError: disk full"),
    ],
)
def test_without_counted_plans_only_what_is_free_is_said(torch: TorchInfo | None, why: str) -> None:
    check = check_memory("GPU 1", GpuInfo("RTX", total=8 * GIB, free=7 * 10**9), torch)
    assert check is not None
    assert (check.name, check.ok) == ("GPU 1, memory plan", None)
    assert check.detail == f"7.0 GB free; the need was not counted: {why}"


def test_where_the_memory_is_not_known_nothing_is_said(plans: tuple[MemoryPlan, ...]) -> None:
    assert check_memory("GPU", GpuInfo("RTX"), TorchInfo(plans=plans)) is None


def test_plans_come_over_as_they_were(plans: tuple[MemoryPlan, ...]) -> None:
    assert plans[-1].streamed
    assert plans == tuple(replace(plan) for plan in plans)
    assert all(isinstance(plan.streamed, tuple) and isinstance(plan.waiting, tuple) for plan in plans)
