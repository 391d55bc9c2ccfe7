from __future__ import annotations

from dataclasses import replace

import pytest

from personalive.cli.gpu_info import Gpu, Torch
from personalive.cli.gpu_memory import beside_cuda, memory_check
from personalive.cli.memory_plans import counted_plans, plan_from
from personalive.pipelines.diffusion.memory.plan import MemoryPlan

GIB = 2**30


@pytest.fixture(scope="module")
def plans() -> tuple[MemoryPlan, ...]:
    """As PyTorch's process counts them."""
    return tuple(plan_from(each) for each in counted_plans())


@pytest.mark.parametrize(
    ("total", "name"),
    [(4, "least"), (6, "most"), (8, "on"), (11, "off"), (12, "off"), (16, "off"), (24, "off")],
)
def test_each_card_has_its_plan(plans: tuple[MemoryPlan, ...], total: int, name: str) -> None:
    check = memory_check("GPU", Gpu("RTX", total=total * GIB), Torch(plans=plans))
    assert check is not None
    plan = next(plan for plan in plans if plan.name == name)
    assert check.detail.startswith(f"{total} GB card: {plan.sentence} (")
    assert check.detail.endswith(f"low_vram={name})")
    assert check.ok is (True if name == "off" else None)
    assert check.remedy is None


def test_what_is_free_decides_to_the_byte(plans: tuple[MemoryPlan, ...]) -> None:
    for plan, leaner in zip(beside_cuda(plans), [*plans[1:], None], strict=True):
        for free, taken in ((plan.need, plan), (plan.need - 1, leaner)):
            check = memory_check("GPU", Gpu("RTX", total=24 * GIB, free=free), Torch(plans=plans))
            assert check is not None
            assert (f"low_vram={taken.name})" if taken else "too little GPU memory") in check.detail


def test_too_little_for_anything_is_a_problem_with_a_way_out(plans: tuple[MemoryPlan, ...]) -> None:
    check = memory_check("GPU", Gpu("RTX", total=8 * GIB, free=2 * 10**9), Torch(plans=plans))
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
        (Torch(trouble="ImportError: libcudart.so.13"), "ImportError: libcudart.so.13"),
        (Torch(plans_trouble="OSError: disk full"), "OSError: disk full"),
    ],
)
def test_without_counted_plans_only_what_is_free_is_said(torch: Torch | None, why: str) -> None:
    check = memory_check("GPU 1", Gpu("RTX", total=8 * GIB, free=7 * 10**9), torch)
    assert check is not None
    assert (check.name, check.ok) == ("GPU 1, memory plan", None)
    assert check.detail == f"7.0 GB free; what is needed was not counted: {why}"


def test_where_the_memory_is_not_known_nothing_is_said(plans: tuple[MemoryPlan, ...]) -> None:
    assert memory_check("GPU", Gpu("RTX"), Torch(plans=plans)) is None


def test_plans_come_over_as_they_were(plans: tuple[MemoryPlan, ...]) -> None:
    assert plans[-1].streamed
    assert plans == tuple(replace(plan) for plan in plans)
    assert all(isinstance(plan.streamed, tuple) and isinstance(plan.waiting, tuple) for plan in plans)
