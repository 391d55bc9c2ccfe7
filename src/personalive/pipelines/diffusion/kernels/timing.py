"""Comparison of the time that calls take on a GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import torch

Call = Callable[[], object]

_ROUNDS = 5
_ROUND_MS = 0.5
_MAX_CALLS = 10
"""The most calls of a round; a round has as many as take `_ROUND_MS`."""
_GIVE_UP_RATIO = 3.0
"""A call that takes this many times as long as the fastest is not timed again."""
_MIN_HOLD_SECONDS = 1e-3
"""Seconds that the GPU waits for the host to launch a call whose launch was not timed yet."""
_CLOCK_HZ = 2.5e9
"""Cycles per second of a fast GPU; a slower one waits longer."""


class KernelTimer(Protocol):
    """A timer of calls that have been made once before."""

    def measure(self, calls: Mapping[str, Call]) -> dict[str, float]:
        """Return the milliseconds of each call."""


class CudaKernelTimer:
    """A timer that uses CUDA events on the current stream.

    The calls of a round are queued while the GPU waits, so that the GPU's work is timed and not the host's, as in a
    CUDA graph. Each call finds in the cache what the one before left there, as in a network, whose operations read
    what was just written. Calls take turns, and medians are compared.
    """

    def measure(self, calls: Mapping[str, Call]) -> dict[str, float]:
        """See `KernelTimer`."""
        first = {name: self._time_round(call, 1, _MIN_HOLD_SECONDS) for name, call in calls.items()}
        once = {name: _elapsed_ms(*span) for name, (span, _) in first.items()}
        fastest = min(once.values())
        took: dict[str, list[float]] = {name: [] for name in calls}
        entered = [
            name for name, ms in once.items() if ms <= _GIVE_UP_RATIO * max(fastest, _ROUND_MS / _MAX_CALLS)
        ]
        count = int(min(max(_ROUND_MS / max(fastest, 1e-3), 1), _MAX_CALLS))
        for _ in range(_ROUNDS):
            spans = {
                name: self._time_round(calls[name], count, count * first[name][1])[0] for name in entered
            }
            for name, span in spans.items():
                took[name].append(_elapsed_ms(*span) / count)
        return {name: statistics.median(took[name] or [once[name]]) for name in calls}

    def _time_round(
        self, call: Call, count: int, host: float
    ) -> tuple[tuple[torch.cuda.Event, torch.cuda.Event], float]:
        """Return the events before and after `count` calls, and the seconds that the host needed per call.

        `host`: the seconds that the host is expected to need for all calls.
        """
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(int(1.2 * host * _CLOCK_HZ))
        begun.record()
        started = time.perf_counter()
        for _ in range(count):
            call()
        spent = time.perf_counter() - started
        ended.record()
        return (begun, ended), spent / count


def _elapsed_ms(begun: torch.cuda.Event, ended: torch.cuda.Event) -> float:
    ended.synchronize()
    took: float = begun.elapsed_time(ended)
    return took
