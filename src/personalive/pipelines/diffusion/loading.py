"""Loading of a set of weights with the fastest memory plan that fits the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from personalive.pipelines.base import LoadProgressCallback
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.loader import (
    build_components,
    prepare_networks,
)
from personalive.pipelines.diffusion.components import Components
from personalive.pipelines.diffusion.device.devices import resolve_dtype
from personalive.pipelines.diffusion.memory.allocator import enable_expandable_segments
from personalive.pipelines.diffusion.memory.fallback import build_with_fallback
from personalive.pipelines.diffusion.memory.plan import MemoryPlan
from personalive.pipelines.diffusion.memory.planner import make_plans_for_set
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.stages.quantization import require_float8

T = TypeVar("T")


def load_with_plan(
    parameters: PersonaLiveLoadParameters,
    device: torch.device,
    build: Callable[[Components, MemoryPlan], T],
    report: LoadProgressCallback | None = None,
) -> T:
    """Load the networks as a memory plan requires, and return what `build` makes of both.

    When memory runs out, in `build` too, everything is repeated with a leaner plan; see `build_with_fallback`.

    Raises:
        WeightsError: The set of weights cannot be used.
        InputError: The device does not compute in this type.
    """
    enable_expandable_segments(device)
    if parameters.dtype == "float8":
        require_float8(device)
    dtype = resolve_dtype(parameters.dtype, device)

    root = layout.find_weights_dir(parameters.weights)
    # Only the first plan uses these networks. They are filled by then, so later plans prepare their own.
    waiting = [prepare_networks(root)]
    networks = {each.spec.name: each.module for each in waiting[0]}
    plans = make_plans_for_set(networks, parameters, dtype, device)

    def progress(network: str, done: int, total: int) -> None:
        if report is not None:
            report(f"loading {network}", done / max(total, 1))

    def made(plan: MemoryPlan) -> T:
        models = build_components(
            waiting.pop() if waiting else prepare_networks(root),
            device=device,
            dtype=dtype,
            progress=progress,
            offloaded=plan.waiting,
            on_host=plan.host_networks,
        )
        return build(models, plan)

    return build_with_fallback(device, plans, parameters.low_vram, made)
