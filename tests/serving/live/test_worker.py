from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from personalive.errors import SessionClosedError
from personalive.pipelines.interface import AnimatedChunk, FrameChunk, FrameState, Pipeline, Session
from personalive.serving.live.worker import Worker

PAUSE = 0.002


def chunk() -> FrameChunk:
    return FrameChunk(np.zeros((1, 16, 16, 3), np.uint8), np.zeros(1))


class OneSession:
    """A session as the worker sees it; it breaks down at a step if told to."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.steps, self.fail_at = 0, fail_at

    def step(self, driving: FrameChunk) -> AnimatedChunk:
        self.steps += 1
        if self.fail_at is not None and self.steps >= self.fail_at:
            raise RuntimeError("broke down")
        time.sleep(PAUSE)
        return AnimatedChunk(np.stack(list(driving.images)), driving.times, (FrameState.ANIMATED,))


class AlwaysReady:
    def __init__(self, session: OneSession | None = None) -> None:
        self.own = session or OneSession()
        self.session: Session[Any] = self.own  # type: ignore[assignment]
        self.given: list[int] = []
        self.failures: list[Exception] = []
        self.threads: set[str] = set()

    def ready(self) -> bool:
        return True

    def take(self) -> FrameChunk:
        self.threads.add(threading.current_thread().name)
        return chunk()

    def give(self, driving: FrameChunk, animated: AnimatedChunk, seconds: float, together: int) -> None:
        assert seconds > 0
        self.given.append(together)

    def fail(self, error: Exception) -> None:
        self.failures.append(error)


class Batching:
    sessions_together = 4

    def __init__(self) -> None:
        self.most = 0

    def step_many(self, sessions: Sequence[OneSession], chunks: Sequence[FrameChunk]) -> list[AnimatedChunk]:
        self.most = max(self.most, len(sessions))
        return [session.step(each) for session, each in zip(sessions, chunks, strict=True)]


def one_by_one() -> Pipeline[Any, Any]:
    """A pipeline that steps several sessions as the interface's default does; it has no other part."""

    class OneByOne(Pipeline[Any, Any]):
        pass

    OneByOne.__abstractmethods__ = frozenset()
    return OneByOne()  # type: ignore[abstract]


def run(act: Callable[[Worker], Awaitable[None]]) -> None:
    async def whole() -> None:
        worker = Worker()
        worker.start()
        try:
            await act(worker)
        finally:
            worker.stop()
        assert not worker.alive

    asyncio.run(whole())


def test_calls_come_back_with_what_they_gave_or_raised() -> None:
    async def act(worker: Worker) -> None:
        assert await worker.call(threading.current_thread) is not threading.current_thread()
        assert await worker.call(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await worker.call(divmod, 7, 0)
        assert await worker.answers()
        worker.stop()
        assert not await worker.answers()
        with pytest.raises(SessionClosedError, match="stopping"):
            await worker.call(divmod, 7, 2)

    run(act)


@pytest.mark.parametrize("batching", [False, True])
def test_sessions_are_served_evenly_and_calls_come_between(batching: bool) -> None:
    pipeline: Any = Batching() if batching else one_by_one()
    clients = [AlwaysReady() for _ in range(6)]

    async def act(worker: Worker) -> None:
        worker.pipeline = pipeline
        for client in clients:
            worker.add(client)
        for _ in range(20):
            assert await asyncio.wait_for(worker.call(int), 2) == 0
            await asyncio.sleep(0.005)
        for client in clients:
            worker.remove(client)
        await worker.call(int)
        counts = [client.own.steps for client in clients]
        assert min(counts) > 3
        assert max(counts) - min(counts) <= 1
        assert {len(client.given) for client in clients} == set(counts)
        assert {name for client in clients for name in client.threads} == {"pipeline"}
        await asyncio.sleep(0.02)
        assert [client.own.steps for client in clients] == counts

    run(act)
    if batching:
        assert pipeline.most == pipeline.sessions_together


@pytest.mark.parametrize("batching", [False, True])
def test_a_breakdown_ends_one_session_only(batching: bool) -> None:
    bad, good = AlwaysReady(OneSession(fail_at=3)), [AlwaysReady() for _ in range(2)]

    async def act(worker: Worker) -> None:
        worker.pipeline = Batching() if batching else one_by_one()  # type: ignore[assignment]
        for client in (good[0], bad, good[1]):
            worker.add(client)
        async with asyncio.timeout(10):
            while not bad.failures:
                await asyncio.sleep(0.01)
            before = [client.own.steps for client in good]
            while not all(client.own.steps > steps for client, steps in zip(good, before, strict=True)):
                await asyncio.sleep(0.01)
        assert [str(error) for error in bad.failures] == ["broke down"]
        assert not any(client.failures for client in good)

    run(act)
