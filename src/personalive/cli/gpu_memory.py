"""How the diffusion pipeline fits into a GPU's memory, told from what is free.

`Planner` is all that others need to know: put another one in where memory is planned better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_CONTEXT = 0.5e9
"""Bytes that CUDA takes for a process before its first tensor: 0.3 to 0.5 GB."""
NEEDS_FULL = int(7.86e9 + _CONTEXT)
"""Bytes held with every default (docs/performance.md, Memory)."""
NEEDS_LOW = int(6.13e9 + _CONTEXT)
"""Bytes held with low_vram=true (the same)."""
TAKEN = int(0.6 * 2**30)
"""Bytes of a card that a desktop and the driver leave nobody else."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How it runs: with every default, with `low_vram`, or not at all; in a sentence, and what to do about it."""

    fit: Literal["full", "low_vram", "too_little"]
    sentence: str
    remedy: str | None = None


Planner = Callable[[int], MemoryPlan]
"""Bytes that are free on a GPU → the plan for 512×512 and one session."""


def plan_memory(free: int) -> MemoryPlan:
    """Today's rule: what is free against what docs/performance.md says is held; see `Planner`."""
    gigabytes = f"{free / 1e9:.1f} GB free"
    if free >= NEEDS_FULL:
        return MemoryPlan("full", f"{gigabytes}: everything stays on the GPU ({NEEDS_FULL / 1e9:.1f} GB).")
    if free >= NEEDS_LOW:
        return MemoryPlan(
            "low_vram",
            f"{gigabytes}: too little for the default ({NEEDS_FULL / 1e9:.1f} GB), enough with low_vram "
            f"({NEEDS_LOW / 1e9:.1f} GB).",
            "Say: --set low_vram=true",
        )
    return MemoryPlan(
        "too_little",
        f"{gigabytes}: too little for the diffusion pipeline at 512×512, which needs {NEEDS_LOW / 1e9:.1f} GB with "
        "low_vram.",
        "Close what uses the GPU, or take fewer pixels: --set low_vram=true --set height=384 --set width=384",
    )
