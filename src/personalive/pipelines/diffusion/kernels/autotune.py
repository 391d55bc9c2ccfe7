"""Which launches of a kernel are tried on a GPU. Few: each costs a compilation at the first start."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

import triton

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Kernels run as Python on the CPU, for tests: nothing can be timed there."""

_TRIAL_MS, _WARMUP_MS = 10, 2

LaunchConfig = tuple[dict[str, int], int] | tuple[dict[str, int], int, int]
"""Block sizes and warps, and where a kernel brings tiles ahead, how many are on their way at once."""


def autotune(configs: Sequence[LaunchConfig], key: list[str]) -> Any:
    """Let a kernel try each launch, once for each value of the arguments in `key`.

    What was fastest is kept on disk where this Triton can. All of them are the tuned kernel's `launches`.
    """
    tried = [
        triton.Config(dict(sizes), num_warps=warps, **({"num_stages": stages[0]} if stages else {}))
        for sizes, warps, *stages in configs
    ]
    options: dict[str, Any] = {}
    if "cache_results" in inspect.signature(triton.autotune).parameters:
        options["cache_results"] = True
    tune = triton.autotune(
        configs=tried[:1] if IS_INTERPRETED else tried, key=key, do_bench=_benchmark, **options
    )

    def decorate(kernel: Any) -> Any:
        tuner = tune(kernel)
        tuner.launches = tried
        return tuner

    return decorate


def _benchmark(call: Callable[[], Any], quantiles: Sequence[float]) -> Any:
    return triton.testing.do_bench(call, warmup=_WARMUP_MS, rep=_TRIAL_MS, quantiles=quantiles)
