"""Measure how long the event loop was blocked, for tests, by the delay of ticks that should be regular."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

TICK_S = 0.005


class LoopLagMonitor:
    """A monitor that records the largest delay of a tick, in seconds."""

    def __init__(self, is_relevant: Callable[[], bool] = lambda: True) -> None:
        """`is_relevant` returns whether a tick counts: without a session, a blocked loop delays no frames."""
        self.max_lag_s = 0.0
        self._is_relevant = is_relevant
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to monitor the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._measure(), name="stall-watch")

    async def stop(self) -> None:
        """Stop monitoring."""
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
            self.max_lag_s = max(self.max_lag_s, late)
