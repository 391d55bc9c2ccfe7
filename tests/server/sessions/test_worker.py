from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from personalive.errors import SessionClosedError
from personalive.pipelines.base import AnimatedChunk, FrameChunk, FrameState, Pipeline, Session
from personalive.server.sessions.worker import PipelineWorker

PAUSE = 0.002


def chunk() -> FrameChunk:
    return FrameChunk(np.zeros((1, 16, 16, 3), np.uint8), np.zeros(1))


class OneSession:
    """A session as the worker sees it; it breaks down at a step if told to."""

    def __init__(self, fail_at: int | None = None, pause: float = PAUSE) -> None:
        self.steps, self.fail_at, self.pause = 0, fail_at, pause

    def step(self, driving: FrameChunk) -> AnimatedChunk:
        self.steps += 1
        if self.fail_at is not None and self.steps >= self.fail_at:
            raise RuntimeError("broke down")
        time.sleep(self.pause)
        return AnimatedChunk(np.stack(list(driving.images)), driving.times, (FrameState.ANIMATED,))


class AlwaysReady:
    def __init__(self, session: OneSession | None = None) -> None:
        self.own = session or OneSession()
        self.pipeline_session: Session[Any] = self.own  # type: ignore[assignment]
        self.given: list[int] = []
        self.failures: list[Exception] = []
        self.threads: set[str] = set()

    def is_ready(self) -> bool:
        return True

    def take_chunk(self) -> FrameChunk:
        self.threads.add(threading.current_thread().name)
        return chunk()

    def on_result(self, driving: FrameChunk, animated: AnimatedChunk, seconds: float, together: int) -> None:
        assert seconds > 0
        self.given.append(together)

    def on_error(self, error: Exception) -> None:
        self.failures.append(error)


class Batching(Pipeline[Any, Any]):
    session_batch_size = 4

    def __init__(self) -> None:
        self.most = 0

    def step_many(self, sessions: Sequence[Any], chunks: Sequence[FrameChunk]) -> list[AnimatedChunk]:
        self.most = max(self.most, len(sessions))
        return [session.step(each) for session, each in zip(sessions, chunks, strict=True)]


Batching.__abstractmethods__ = frozenset()


class Queueing(Pipeline[Any, Any]):
    """Steps in the background, one after another, and counts how many waited when one had ended."""

    queues_steps = True

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1)
        self.asked = 0
        self.waiting: list[int] = []

    def submit_steps(
        self, sessions: Sequence[Any], chunks: Sequence[FrameChunk]
    ) -> Future[list[AnimatedChunk]]:
        self.asked += 1

        def step() -> list[AnimatedChunk]:
            try:
                return self.step_many(sessions, chunks)
            finally:
                self.waiting.append(self.asked - len(self.waiting) - 1)

        return self._executor.submit(step)


Queueing.__abstractmethods__ = frozenset()


def one_by_one() -> Pipeline[Any, Any]:
    """A pipeline that steps several sessions as the interface's default does; it has no other part."""

    class OneByOne(Pipeline[Any, Any]):
        pass

    OneByOne.__abstractmethods__ = frozenset()
    return OneByOne()  # type: ignore[abstract]


def run(act: Callable[[PipelineWorker], Awaitable[None]]) -> None:
    async def whole() -> None:
        worker = PipelineWorker()
        worker.start()
        try:
            await act(worker)
        finally:
            worker.stop()
        assert not worker.is_alive

    asyncio.run(whole())


def test_calls_come_back_with_what_they_gave_or_raised() -> None:
    async def act(worker: PipelineWorker) -> None:
        assert await worker.call(threading.current_thread) is not threading.current_thread()
        assert await worker.call(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await worker.call(divmod, 7, 0)
        assert await worker.is_responsive()
        worker.stop()
        assert not await worker.is_responsive()
        with pytest.raises(SessionClosedError, match="stopping"):
            await worker.call(divmod, 7, 2)

    run(act)


@pytest.mark.parametrize("batching", [False, True])
def test_sessions_are_served_evenly_and_calls_come_between(batching: bool) -> None:
    pipeline: Any = Batching() if batching else one_by_one()  # type: ignore[abstract]
    clients = [AlwaysReady() for _ in range(6)]

    async def act(worker: PipelineWorker) -> None:
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
        assert pipeline.most == pipeline.session_batch_size


@pytest.mark.parametrize("batching", [False, True])
def test_a_breakdown_ends_one_session_only(batching: bool) -> None:
    bad, good = AlwaysReady(OneSession(fail_at=3)), [AlwaysReady() for _ in range(2)]

    async def act(worker: PipelineWorker) -> None:
        worker.pipeline = Batching() if batching else one_by_one()  # type: ignore[abstract]
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


def test_the_next_step_is_asked_for_before_the_current_one_ends() -> None:
    pipeline = Queueing()  # type: ignore[abstract]
    clients = [AlwaysReady(OneSession(pause=0.03)) for _ in range(2)]

    async def act(worker: PipelineWorker) -> None:
        worker.pipeline = pipeline
        for client in clients:
            worker.add(client)
        async with asyncio.timeout(20):
            while sum(pipeline.waiting) < 5:
                await asyncio.sleep(0.01)
        for client in clients:
            worker.remove(client)
        await worker.call(int)
        # A call comes after every step that was asked for.
        assert pipeline.asked == len(pipeline.waiting) == sum(client.own.steps for client in clients)
        assert [len(client.given) for client in clients] == [client.own.steps for client in clients]
        assert abs(clients[0].own.steps - clients[1].own.steps) <= 1

    run(act)
    assert max(pipeline.waiting) == 1


def test_a_session_that_breaks_down_with_a_step_asked_for_ends_alone() -> None:
    pipeline = Queueing()  # type: ignore[abstract]
    bad, good = AlwaysReady(OneSession(fail_at=4, pause=0.03)), AlwaysReady(OneSession(pause=0.03))

    async def act(worker: PipelineWorker) -> None:
        worker.pipeline = pipeline
        worker.add(bad)
        async with asyncio.timeout(20):
            while not bad.failures:
                await asyncio.sleep(0.01)
            worker.add(good)
            while good.own.steps < 3:
                await asyncio.sleep(0.01)

    run(act)
    assert {str(error) for error in bad.failures} == {"broke down"}
    assert not good.failures


def test_calls_that_were_not_made_end_with_the_worker() -> None:
    async def act(worker: PipelineWorker) -> None:
        begun = threading.Event()

        def hold() -> None:
            begun.set()
            time.sleep(0.2)

        held = asyncio.ensure_future(worker.call(hold))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        waiting = asyncio.ensure_future(worker.call(int))
        await asyncio.sleep(0.05)
        worker.stop()
        await held
        with pytest.raises(SessionClosedError, match="stopping"):
            await asyncio.wait_for(waiting, 2)

    run(act)
