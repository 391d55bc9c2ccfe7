"""The choice of the fastest memory plan that fits, with a fallback to leaner ones when memory still runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from personalive.errors import PipelineUnavailableError
from personalive.out_of_memory import is_out_of_memory
from personalive.pipelines.diffusion.memory.allocator import empty_cache, plannable_bytes
from personalive.pipelines.diffusion.memory.plan import REMEDY, MemoryPlan, describe_shortage, select_plans

_log = logging.getLogger(__name__)

T = TypeVar("T")


def build_with_fallback(
    device: torch.device, plans: Sequence[MemoryPlan], requested: str, build: Callable[[MemoryPlan], T]
) -> T:
    """Return what `build` makes of the first plan with which memory does not run out; see `select_plans`.

    Raises `PipelineUnavailableError` where memory is too short for every plan; all of it is freed before.
    """
    if device.type != "cuda":
        return build(select_plans(plans, requested)[0])
    empty_cache(device)
    free = plannable_bytes(device)
    tried = select_plans(plans, requested, free)
    reason = ""
    for plan in tried:
        _log.info("%s", plan.summary(free))
        try:
            return build(plan)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = _shorten_message(error)
        # Outside of the handler, since the error's traceback keeps alive what filled the memory.
        empty_cache(device)
        _log.info("memory ran out with the memory plan %s: %s", plan.name, reason)
    raise PipelineUnavailableError(f"{describe_shortage(tried[-1].need, free, reason)} {REMEDY}")


def _shorten_message(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text.partition(". ")[0].rstrip(".") or type(error).__name__
