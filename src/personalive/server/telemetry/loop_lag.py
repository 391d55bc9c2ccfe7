"""How long the event loop was kept from its work: measured in test builds, by a clock that should tick evenly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

TICK = 0.005


class StallWatch:
    """Remembers by how much a tick was late at most, in seconds."""

    def __init__(self, counts: Callable[[], bool] = lambda: True) -> None:
        """`counts` says whether it matters now: while nobody streams, nobody is kept waiting."""
        self.longest = 0.0
        self.over_20_ms = 0
        self.ticks = 0
        self._counts = counts
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="stall-watch")

    async def stop(self) -> None:
        """Watch no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK)
            if not self._counts():
                continue
            late = time.perf_counter() - begun - TICK
            self.ticks += 1
            self.longest = max(self.longest, late)
            self.over_20_ms += late > 0.020
