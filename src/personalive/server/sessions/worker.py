"""The one thread that touches a pipeline: it steps all its live sessions in turn, and does what others ask between.

Whoever has waited longest is stepped next, so sessions slow down evenly when there are more than the machine can
carry. A pipeline that can step several sessions in one call gets them together. One that queues steps is asked for
the next shortly before the current one ends, so that it never waits for this process; not earlier, since the next
step should get the newest frames.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar
from weakref import WeakKeyDictionary

from personalive.errors import SessionClosedError
from personalive.pipelines.base import AnimatedChunk, FrameChunk, Pipeline, Session
from personalive.server.sessions.memory import give_back_memory

P = ParamSpec("P")
T = TypeVar("T")

_STOPPING = "The server is stopping."
_log = logging.getLogger(__name__)

_IDLE_LOOK = 0.5
_AHEAD_S = 0.005
"""Seconds before the expected end of a step when the next one is asked for."""


class Client(Protocol):
    """What the worker steps. All of it is called on the worker's thread."""

    session: Session[Any]

    def ready(self) -> bool:
        """Whether `take` would give a chunk. Quick: asked often."""

    def take(self) -> FrameChunk | None:
        """The next driving frames, or None if they are gone by now."""

    def give(self, driving: FrameChunk, animated: AnimatedChunk, seconds: float, together: int) -> None:
        """What a step made of them in `seconds`, `together` with so many sessions in all."""

    def fail(self, error: Exception) -> None:
        """The session broke down, and is stepped no more."""


@dataclass(eq=False)
class _Step:
    """A step that was asked for: `begun` in seconds of `perf_counter`, and how long it should take."""

    clients: list[Client]
    chunks: list[FrameChunk]
    made: Future[list[AnimatedChunk]]
    begun: float
    expected: float


class Worker:
    """Start it before anything else, stop it last. A server has one for each GPU that it uses."""

    def __init__(self, name: str = "", environment: Mapping[str, str] | None = None) -> None:
        """`name` is shown where there are several; `environment` is added to its pipeline's process."""
        self.name = name
        self.environment = dict(environment or {})
        self.pipeline: Pipeline[Any, Any] | None = None
        """What sessions are stepped by. Set on the worker's thread only."""
        self.converter = ThreadPoolExecutor(1, "converter")
        """Makes pictures of frames and frames of pictures beside the steps; one thread, so that order is kept."""
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._clients: list[Client] = []  # whoever was served last comes last
        self._steps: deque[_Step] = deque()
        self._seconds: WeakKeyDictionary[Client, float] = WeakKeyDictionary()
        """How long the last step of each took."""
        self._condition = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, within: float = 5.0) -> None:
        """End after the step at hand, or after `within` seconds without it; calls still waiting are cancelled."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(within)
        self.converter.shutdown(wait=False, cancel_futures=True)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it on the worker's thread between two steps, and return or raise what it does.

        Raises `SessionClosedError` when the worker has stopped.
        """
        future: Future[T] = Future()
        with self._condition:
            if self._stopping or not self._thread.is_alive():
                raise SessionClosedError(_STOPPING)
            self._calls.append((future, partial(function, *args, **kwargs)))
            self._condition.notify()
        return await asyncio.wrap_future(future)

    async def answers(self, within: float = 5.0) -> bool:
        """Whether a call comes back within so many seconds."""
        try:
            await asyncio.wait_for(self.call(int), within)
        except (TimeoutError, SessionClosedError):
            return False
        return True

    def add(self, client: Client) -> None:
        """Step this one too. Any thread."""
        with self._condition:
            self._clients.append(client)
            self._condition.notify()

    def remove(self, client: Client) -> None:
        """Step it no more. Any thread; a step at hand is finished and given first only on the worker's own."""
        with self._condition:
            if client in self._clients:
                self._clients.remove(client)

    def wake(self) -> None:
        """A client may have become ready. Any thread."""
        with self._condition:
            self._condition.notify()

    def _run(self) -> None:
        while (task := self._next()) is not None:
            task()

    def _next(self) -> Callable[[], None] | None:
        """What is to be done: steps that were asked for, calls, other steps. None once the worker is to stop."""
        with self._condition:
            while not self._stopping:
                if self._calls:
                    return self._finish if self._steps else self._call
                if self._steps and self._steps[0].made.done():
                    return self._finish
                if (pause := self._pause()) <= 0 and (batch := self._batch()):
                    return partial(self._ask, batch)
                self._condition.wait(pause if pause > 0 else _IDLE_LOOK)
            if self._steps:
                return self._finish
            for future, _ in self._calls:
                future.set_exception(SessionClosedError(_STOPPING))
            self._calls.clear()
            return None

    def _pause(self) -> float:
        """Seconds until a step may be asked for."""
        if not self._steps:
            return 0.0
        pipeline, current = self.pipeline, self._steps[0]
        # Where several are stepped together and fail, each is stepped again, and none may have gone on meanwhile.
        if (
            len(self._steps) > 1
            or pipeline is None
            or not pipeline.queues_steps
            or pipeline.sessions_together > 1
        ):
            return _IDLE_LOOK
        return min(current.begun + current.expected - _AHEAD_S - time.perf_counter(), _IDLE_LOOK)

    def _call(self) -> None:
        future, function = self._calls.popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    def _batch(self) -> list[Client]:
        if self.pipeline is None:
            return []
        many = self.pipeline.sessions_together
        chosen = [client for client in self._clients if client.ready()][:many]
        for client in chosen:
            self._clients.remove(client)
            self._clients.append(client)
        return chosen

    def _ask(self, batch: list[Client]) -> None:
        """Ask for a step of these."""
        begun = time.perf_counter()
        work = [(client, chunk) for client in batch if (chunk := _taken(client)) is not None]
        if not work or self.pipeline is None:
            return
        clients, chunks = (list(part) for part in zip(*work, strict=True))
        made = self.pipeline.submit_steps([client.session for client in clients], chunks)
        expected = max(self._seconds.get(client, math.inf) for client in clients)
        self._steps.append(_Step(clients, chunks, made, begun, expected))
        made.add_done_callback(lambda _: self.wake())

    def _finish(self) -> None:
        """Wait for the step that was asked for first, and give what it made."""
        step = self._steps.popleft()
        try:
            results = step.made.result()
        except Exception as error:
            self._failed(step, error)
            results = []
        now = time.perf_counter()
        if self._steps:
            self._steps[0].begun = now
        for client, chunk, result in zip(step.clients, step.chunks, results, strict=False):
            self._give(client, chunk, result, now - step.begun, len(step.clients))

    def _give(
        self, client: Client, chunk: FrameChunk, result: AnimatedChunk, took: float, together: int
    ) -> None:
        seconds = self._seconds[client] = result.seconds or took
        client.give(chunk, result, seconds, together)

    def _failed(self, step: _Step, error: Exception) -> None:
        if len(step.clients) == 1:
            self._fail(step.clients[0], error)
            return
        # One of them spoils it for all: alone, each gets what it would have got, or its own failure.
        _log.warning("a step of %d sessions failed, each is stepped alone: %s", len(step.clients), error)
        give_back_memory()
        for client, chunk in zip(step.clients, step.chunks, strict=True):
            self._step_alone(client, chunk)

    def _step_alone(self, client: Client, chunk: FrameChunk) -> None:
        begun = time.perf_counter()
        try:
            result = client.session.step(chunk)
        except Exception as error:
            self._fail(client, error)
        else:
            self._give(client, chunk, result, time.perf_counter() - begun, 1)

    def _fail(self, client: Client, error: Exception) -> None:
        self.remove(client)
        client.fail(error)
        give_back_memory()


def _taken(client: Client) -> FrameChunk | None:
    try:
        return client.take()
    except Exception as error:
        client.fail(error)
        return None
