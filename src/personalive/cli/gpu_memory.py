"""The doctor's check of how the diffusion pipeline fits into the free memory of a GPU."""

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
"""Bytes of a card assumed to be used by the desktop and the driver, where its free memory is not known."""
_REDUCE_ADVICE = (
    "Close other programs that use the GPU, or use fewer pixels: --set height=384 --set width=384"
)


def check_memory(label: str, gpu: GpuInfo, torch: TorchInfo | None) -> CheckResult | None:
    """Check a GPU's memory against the plans that PyTorch's process counted with all defaults.

    None where the GPU's memory is not known.
    """
    if gpu.total is None:
        return None
    name, free = f"{label}, memory plan", free_bytes(gpu.total, gpu.free)
    if torch is None or not torch.plans:
        why = "PyTorch is not installed" if torch is None else torch.plans_error or torch.error
        return CheckResult(name, None, f"{free / 1e9:.1f} GB free; the need was not counted: {why}")
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
    """Return how many bytes of a card are free, or an estimate where only its `total` is known."""
    return max(total - DESKTOP_BYTES, 0) if free is None else free


def without_cuda_context(plans: tuple[MemoryPlan, ...]) -> tuple[MemoryPlan, ...]:
    """Return the plans with the needs of a process that has no CUDA context yet."""
    return tuple(replace(plan, need=plan.need + CUDA_CONTEXT_BYTES + RESERVED_BYTES) for plan in plans)
