"""Which launches of a kernel are tried on a GPU. Few: each costs a compilation at the first start."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

import triton

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Kernels run as Python on the CPU, for tests: nothing can be timed there."""

_TRIAL_MS, _WARMUP_MS = 10, 2


def tuned(choices: Sequence[tuple[dict[str, int], int]], key: list[str]) -> Any:
    """Let a kernel try each pair of block sizes and warps, once for each value of the arguments in `key`.

    What was fastest is kept on disk where this Triton can.
    """
    tried = [triton.Config(dict(sizes), num_warps=warps) for sizes, warps in choices]
    options: dict[str, Any] = {}
    if "cache_results" in inspect.signature(triton.autotune).parameters:
        options["cache_results"] = True
    return triton.autotune(configs=tried[:1] if INTERPRETED else tried, key=key, do_bench=_timed, **options)


def _timed(call: Callable[[], Any], quantiles: Sequence[float]) -> Any:
    return triton.testing.do_bench(call, warmup=_WARMUP_MS, rep=_TRIAL_MS, quantiles=quantiles)
