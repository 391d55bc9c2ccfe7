"""How long the event loop was kept from its work: measured in test builds, by a clock that should tick evenly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

TICK_S = 0.005


class LoopLagMonitor:
    """Remembers by how much a tick was late at most, in seconds."""

    def __init__(self, is_relevant: Callable[[], bool] = lambda: True) -> None:
        """`is_relevant` says whether it matters now: while nobody streams, nobody is kept waiting."""
        self.max_lag_s = 0.0
        self.over_20_ms = 0
        self.ticks = 0
        self._is_relevant = is_relevant
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._measure(), name="stall-watch")

    async def stop(self) -> None:
        """Watch no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _measure(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK_S)
            if not self._is_relevant():
                continue
            late = time.perf_counter() - begun - TICK_S
            self.ticks += 1
            self.max_lag_s = max(self.max_lag_s, late)
            self.over_20_ms += late > 0.020
