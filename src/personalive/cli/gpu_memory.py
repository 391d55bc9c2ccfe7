"""How the diffusion pipeline would fit into what is free of a GPU now: the doctor's finding."""

from __future__ import annotations

from dataclasses import replace

from personalive.cli.check_result import CheckResult
from personalive.cli.gpu_info import GpuInfo, TorchInfo
from personalive.errors import PipelineUnavailableError
from personalive.pipelines.diffusion.memory.plan import (
    CUDA_CONTEXT_BYTES,
    RESERVED_BYTES,
    MemoryPlan,
    describe_shortage,
    select_plans,
)

DESKTOP_BYTES = int(0.6 * 2**30)
"""Bytes of a card that a desktop and the driver leave nobody else: where what is free is not known."""
_REDUCE_ADVICE = (
    "Close other programs that use the GPU, or take fewer pixels: --set height=384 --set width=384"
)


def check_memory(label: str, gpu: GpuInfo, torch: TorchInfo | None) -> CheckResult | None:
    """Return what is found of a GPU's memory by the plans that PyTorch's process counted, with every default.

    None where the GPU's memory is not known.
    """
    if gpu.total is None:
        return None
    name, free = f"{label}, memory plan", free_bytes(gpu.total, gpu.free)
    if torch is None or not torch.plans:
        why = "PyTorch is not installed" if torch is None else torch.plans_error or torch.error
        return CheckResult(name, None, f"{free / 1e9:.1f} GB free; what is needed was not counted: {why}")
    plans = without_cuda_context(torch.plans)
    try:
        plan = select_plans(plans, "auto", free)[0]
    except PipelineUnavailableError:
        return CheckResult(name, False, describe_shortage(plans[-1].need, free), _REDUCE_ADVICE)
    room = f"{free / 1e9:.1f} GB free, some {plan.need / 1e9:.1f} needed; low_vram={plan.name}"
    return CheckResult(
        name, True if plan is plans[0] else None, f"{plan.describe_for_card(gpu.total)} ({room})"
    )


def free_bytes(total: int, free: int | None = None) -> int:
    """Return how many bytes of a card are free where it has so many in all."""
    return max(total - DESKTOP_BYTES, 0) if free is None else free


def without_cuda_context(plans: tuple[MemoryPlan, ...]) -> tuple[MemoryPlan, ...]:
    """Return plans whose needs are those of a process that has not begun with CUDA."""
    return tuple(replace(plan, need=plan.need + CUDA_CONTEXT_BYTES + RESERVED_BYTES) for plan in plans)
