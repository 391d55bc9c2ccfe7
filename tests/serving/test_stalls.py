from __future__ import annotations

import asyncio
import time

from personalive.serving.stalls import StallWatch


def test_what_keeps_the_loop_busy_is_measured() -> None:
    async def work() -> StallWatch:
        watch = StallWatch()
        watch.start()
        await asyncio.sleep(0.1)
        watch.reset()
        await asyncio.sleep(0.02)
        time.sleep(0.08)
        await asyncio.sleep(0.05)
        await watch.stop()
        return watch

    watch = asyncio.run(work())
    assert 0.06 < watch.longest < 1.0
    assert watch.over_20_ms >= 1
    assert watch.ticks > 2
