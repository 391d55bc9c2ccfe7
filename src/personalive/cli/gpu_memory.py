"""How the diffusion pipeline would fit into what is free of a GPU now: the doctor's finding."""

from __future__ import annotations

from dataclasses import replace

from personalive.cli.check_result import Check
from personalive.cli.gpu_info import Gpu, Torch
from personalive.errors import PipelineUnavailableError
from personalive.pipelines.diffusion.memory.plan import (
    BESIDE,
    CONTEXT,
    MemoryPlan,
    candidates,
    too_little,
)

TAKEN = int(0.6 * 2**30)
"""Bytes of a card that a desktop and the driver leave nobody else: where what is free is not known."""
_LESS = "Close other programs that use the GPU, or take fewer pixels: --set height=384 --set width=384"


def memory_check(label: str, gpu: Gpu, torch: Torch | None) -> Check | None:
    """Return what is found of a GPU's memory by the plans that PyTorch's process counted, with every default.

    None where the GPU's memory is not known.
    """
    if gpu.total is None:
        return None
    name, free = f"{label}, memory plan", free_bytes(gpu.total, gpu.free)
    if torch is None or not torch.plans:
        why = "PyTorch is not installed" if torch is None else torch.plans_trouble or torch.trouble
        return Check(name, None, f"{free / 1e9:.1f} GB free; what is needed was not counted: {why}")
    plans = beside_cuda(torch.plans)
    try:
        plan = candidates(plans, "auto", free)[0]
    except PipelineUnavailableError:
        return Check(name, False, too_little(plans[-1].need, free), _LESS)
    room = f"{free / 1e9:.1f} GB free, some {plan.need / 1e9:.1f} needed; low_vram={plan.name}"
    return Check(name, True if plan is plans[0] else None, f"{plan.on_card(gpu.total)} ({room})")


def free_bytes(total: int, free: int | None = None) -> int:
    """Return how many bytes of a card are free where it has so many in all."""
    return max(total - TAKEN, 0) if free is None else free


def beside_cuda(plans: tuple[MemoryPlan, ...]) -> tuple[MemoryPlan, ...]:
    """Return plans whose needs are those of a process that has not begun with CUDA."""
    return tuple(replace(plan, need=plan.need + CONTEXT + BESIDE) for plan in plans)
