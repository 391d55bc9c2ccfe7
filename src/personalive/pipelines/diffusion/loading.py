"""Reads a set of weights with the fastest memory plan that fits the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from personalive.pipelines.base import ProgressReport
from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.loader import Prepared, models_of, prepare
from personalive.pipelines.diffusion.components import Models
from personalive.pipelines.diffusion.device.allocator import let_segments_grow
from personalive.pipelines.diffusion.device.devices import dtype_of
from personalive.pipelines.diffusion.memory.fallback import fitted
from personalive.pipelines.diffusion.memory.plan import MemoryPlan
from personalive.pipelines.diffusion.memory.planner import plans_for
from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters
from personalive.pipelines.diffusion.stages.quantization import check

T = TypeVar("T")


def read_fitted(
    parameters: PersonaLiveLoadParameters,
    device: torch.device,
    then: Callable[[Models, MemoryPlan], T],
    report: ProgressReport | None = None,
) -> T:
    """Read the networks as a memory plan wants them, and return what `then` makes of both.

    Where memory runs out in between, `then` too, all is done again with a leaner plan; see `fitted`. Raises
    `WeightsError` for a set that cannot be used, `InputError` for a type that the device does not compute in.
    """
    let_segments_grow(device)
    if parameters.dtype == "float8":
        check(device)
    dtype = dtype_of(parameters.dtype, device)

    root = layout.root_of(parameters.weights)
    # For the first plan that is tried: those after it find these networks filled, and prepare their own.
    waiting = [prepare(root)]
    plans = _plans(waiting[0], parameters, dtype, device)

    def progress(network: str, done: int, total: int) -> None:
        if report is not None:
            report(f"loading {network}", done / max(total, 1))

    def made(plan: MemoryPlan) -> T:
        models = models_of(
            waiting.pop() if waiting else prepare(root),
            device=device,
            dtype=dtype,
            progress=progress,
            shelved=plan.waiting,
            on_host=plan.on_host,
        )
        return then(models, plan)

    return fitted(device, plans, parameters.low_vram, made)


def _plans(
    prepared: Sequence[Prepared],
    parameters: PersonaLiveLoadParameters,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[MemoryPlan, ...]:
    """All memory plans for a set of weights, counted from its files' headers."""
    networks = {each.network.name: each for each in prepared}
    return plans_for(
        {name: each.module for name, each in networks.items()},
        lambda name, entry: networks[name].network.dtype_of(entry, dtype),
        parameters,
        dtype,
        device,
    )
