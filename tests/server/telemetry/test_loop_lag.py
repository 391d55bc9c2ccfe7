from __future__ import annotations

import asyncio
import time

from personalive.server.telemetry.loop_lag import LoopLagMonitor


def test_what_keeps_the_loop_busy_is_measured() -> None:
    async def work() -> LoopLagMonitor:
        streams = False
        watch = LoopLagMonitor(lambda: streams)
        watch.start()
        await asyncio.sleep(0.02)
        time.sleep(0.3)
        await asyncio.sleep(0.02)
        streams = True
        await asyncio.sleep(0.02)
        time.sleep(0.08)
        await asyncio.sleep(0.05)
        await watch.stop()
        return watch

    watch = asyncio.run(work())
    assert 0.06 < watch.max_lag_s < 0.25
