from __future__ import annotations

import asyncio
import threading

from personalive.live.targets.target import TargetError, TargetThread
from personalive.server.sessions.playout_buffer import SentFrame
from tests.live.targets.events import Events, grey_frame


class SlowTarget(TargetThread):
    """Sends a frame when it is let."""

    def __init__(self, events: Events, problem: Exception | None = None) -> None:
        super().__init__("slow", events)
        self.sent: list[int] = []
        self.let = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.released = False
        self._problem = problem

    def _open(self) -> None:
        pass

    def _send(self, frame: SentFrame) -> None:
        self.begun.release()
        assert self.let.acquire(timeout=20)
        if self._problem is not None:
            raise self._problem
        self.sent.append(int(frame.image[0, 0, 0]))

    def _release(self) -> None:
        self.released = True


def test_a_slow_target_gets_the_newest_frame() -> None:
    events = Events()

    async def act() -> None:
        target = SlowTarget(events)
        await target.open()
        target.put(grey_frame(0))
        assert await asyncio.to_thread(target.begun.acquire, timeout=20)
        for number in range(1, 6):
            target.put(grey_frame(number))
        target.let.release(2)
        async with asyncio.timeout(20):
            while len(target.sent) < 2:
                await asyncio.sleep(0.005)
        await target.close()
        assert target.sent == [0, 5]
        assert target.released

    asyncio.run(act())
    assert len(events.delivered) == 2


def test_a_failing_target_is_released_and_told_of() -> None:
    for problem, said in (
        (TargetError("It is gone."), "It is gone."),
        (KeyError("x"), "slow failed: KeyError: 'x'."),
    ):
        events = Events()

        async def act(error: Exception = problem, events: Events = events) -> None:
            target = SlowTarget(events, error)
            await target.open()
            target.let.release()
            target.put(grey_frame(0))
            async with asyncio.timeout(20):
                while not (events.ended and target.released):
                    await asyncio.sleep(0.005)
            await target.close()

        asyncio.run(act())
        assert events.ended == [said]
