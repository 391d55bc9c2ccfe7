"""Autotuning of a kernel's launch configurations: only a few, since each is compiled at the first start."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any

import triton

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run as Python on the CPU, for tests: nothing can be timed there."""

_TRIAL_MS, _WARMUP_MS = 10, 2

LaunchConfig = tuple[dict[str, int], int] | tuple[dict[str, int], int, int]
"""Block sizes, number of warps and, for kernels that prefetch tiles, number of pipeline stages."""


def autotune(configs: Sequence[LaunchConfig], key: list[str]) -> Any:
    """Decorate a kernel to try each launch configuration, once for each value of the arguments in `key`.

    The fastest is kept on disk if this version of Triton supports it. The tuned kernel lists all in `launches`.
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
