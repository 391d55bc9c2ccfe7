"""How long calls take on a GPU, beside each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import torch

Call = Callable[[], object]

_ROUNDS = 5
_SPAN_MS = 0.5
_MOST_CALLS = 10
"""Calls of a round: as many as take so long, at most this many."""
_HOPELESS = 3.0
"""What takes so many times as long as the fastest is called no more."""
_PATIENCE = 1e-3
"""Seconds that a host is given for a call that it was never timed at."""
_RATE = 2.5e9
"""Cycles a second of a fast GPU; on a slower one it is kept waiting for longer."""


class Stopwatch(Protocol):
    """Times calls that were made once before."""

    def measure(self, calls: Mapping[str, Call]) -> dict[str, float]:
        """Milliseconds of each."""


class CudaStopwatch:
    """A GPU's own clock, on the current stream.

    The calls of a round are given to the GPU while it is kept waiting, so that what is timed is the GPU's work and
    not the host's, as it is in a recording. Each call finds in the cache what the one before left there, as it does
    in a network, whose operations take what was just written. Calls take turns, and medians are compared.
    """

    def measure(self, calls: Mapping[str, Call]) -> dict[str, float]:
        """See `Stopwatch`."""
        first = {name: self._round(call, 1, _PATIENCE) for name, call in calls.items()}
        once = {name: _ms(*span) for name, (span, _) in first.items()}
        fastest = min(once.values())
        took: dict[str, list[float]] = {name: [] for name in calls}
        entered = [
            name for name, ms in once.items() if ms <= _HOPELESS * max(fastest, _SPAN_MS / _MOST_CALLS)
        ]
        count = int(min(max(_SPAN_MS / max(fastest, 1e-3), 1), _MOST_CALLS))
        for _ in range(_ROUNDS):
            spans = {name: self._round(calls[name], count, count * first[name][1])[0] for name in entered}
            for name, span in spans.items():
                took[name].append(_ms(*span) / count)
        return {name: statistics.median(took[name] or [once[name]]) for name in calls}

    def _round(
        self, call: Call, count: int, host: float
    ) -> tuple[tuple[torch.cuda.Event, torch.cuda.Event], float]:
        """The moments before and after so many calls, and the seconds that the host needed for one of them.

        `host`: the seconds that it is expected to need for all.
        """
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(int(1.2 * host * _RATE))
        begun.record()
        started = time.perf_counter()
        for _ in range(count):
            call()
        spent = time.perf_counter() - started
        ended.record()
        return (begun, ended), spent / count


def _ms(begun: torch.cuda.Event, ended: torch.cuda.Event) -> float:
    ended.synchronize()
    took: float = begun.elapsed_time(ended)
    return took
