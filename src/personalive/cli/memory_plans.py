"""Memory plans of the released networks, passed from the process with PyTorch to the one without."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from personalive.pipelines.diffusion.memory.plan import MemoryPlan


def count_memory_plans() -> list[dict[str, Any]]:
    """Count the plans with all defaults, as JSON values. Imports PyTorch, and takes 2 s besides."""
    import torch

    from personalive.pipelines.diffusion.checkpoints.random_weights import VARIANTS, build_meta_networks
    from personalive.pipelines.diffusion.memory.planner import make_plans_for_set
    from personalive.pipelines.diffusion.parameters import PersonaLiveLoadParameters

    parameters = PersonaLiveLoadParameters()
    plans = make_plans_for_set(
        build_meta_networks(VARIANTS["released"]), parameters, torch.float16, torch.device("cuda")
    )
    return [dataclasses.asdict(plan) for plan in plans]


def parse_memory_plan(data: Mapping[str, Any]) -> MemoryPlan:
    """Return a plan from its JSON value, in which tuples are lists."""
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
    }
    return MemoryPlan(**fields)
