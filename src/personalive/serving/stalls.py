"""How long the event loop was kept from its work: measured in test builds, by a clock that should tick evenly."""

from __future__ import annotations

import asyncio
import time

TICK = 0.005


class StallWatch:
    """Counts what exceeds a tick. `longest` and `last_stalls` are in seconds."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.over_20_ms = 0
        self.ticks = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="stall-watch")

    async def stop(self) -> None:
        """Watch no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def reset(self) -> None:
        """Count from zero."""
        self.longest, self.over_20_ms, self.ticks = 0.0, 0, 0

    async def _watch(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK)
            late = time.perf_counter() - begun - TICK
            self.ticks += 1
            self.longest = max(self.longest, late)
            self.over_20_ms += late > 0.020
