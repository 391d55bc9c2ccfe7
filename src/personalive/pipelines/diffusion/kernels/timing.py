"""How long calls take on a GPU, beside each other."""

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
"""Calls of a round: as many as take so long, at most this many."""
_GIVE_UP_RATIO = 3.0
"""What takes so many times as long as the fastest is called no more."""
_MIN_HOLD_SECONDS = 1e-3
"""Seconds that a host is given for a call that it was never timed at."""
_CLOCK_HZ = 2.5e9
"""Cycles a second of a fast GPU; on a slower one it is kept waiting for longer."""


class KernelTimer(Protocol):
    """Times calls that were made once before."""

    def measure(self, calls: Mapping[str, Call]) -> dict[str, float]:
        """Milliseconds of each."""


class CudaKernelTimer:
    """A GPU's own clock, on the current stream.

    The calls of a round are given to the GPU while it is kept waiting, so that what is timed is the GPU's work and
    not the host's, as it is in a recording. Each call finds in the cache what the one before left there, as it does
    in a network, whose operations take what was just written. Calls take turns, and medians are compared.
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
        """The moments before and after so many calls, and the seconds that the host needed for one of them.

        `host`: the seconds that it is expected to need for all.
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
