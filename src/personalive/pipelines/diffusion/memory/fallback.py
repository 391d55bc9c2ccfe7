"""Make something with the fastest memory plan that fits, and leaner where memory runs out all the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from personalive.errors import PipelineUnavailableError
from personalive.out_of_memory import is_out_of_memory
from personalive.pipelines.diffusion.device.allocator import free_bytes, release
from personalive.pipelines.diffusion.memory.plan import REMEDY, MemoryPlan, candidates, too_little

_log = logging.getLogger(__name__)

T = TypeVar("T")


def fitted(
    device: torch.device, plans: Sequence[MemoryPlan], wanted: str, make: Callable[[MemoryPlan], T]
) -> T:
    """What `make` makes of the first plan with which memory does not run out; see `candidates`.

    Raises `PipelineUnavailableError` where there is too little for any; what was taken is given back then.
    """
    if device.type != "cuda":
        return make(candidates(plans, wanted)[0])
    release(device)
    free = free_bytes(device)
    tried = candidates(plans, wanted, free)
    reason = ""
    for plan in tried:
        _log.info("%s", plan.summary(free))
        try:
            return make(plan)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = _short(error)
        # Here, since the error's traceback keeps alive what filled the memory.
        release(device)
        _log.info("memory ran out with the memory plan %s: %s", plan.name, reason)
    raise PipelineUnavailableError(f"{too_little(tried[-1].need, free, reason)} {REMEDY}")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text.partition(". ")[0].rstrip(".") or type(error).__name__
