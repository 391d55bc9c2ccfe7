"""The one thread that touches a pipeline: it steps all its live sessions in turn, and does what others ask between.

Whoever has waited longest is stepped next, so sessions slow down evenly when there are more than the machine can
carry. A pipeline that can step several sessions in one call gets them together.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar

from personalive.errors import SessionClosedError
from personalive.pipelines.interface import AnimatedChunk, FrameChunk, Pipeline, Session
from personalive.serving.live.memory import give_back_memory

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

_IDLE_LOOK = 0.5


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
        self._calls: deque[Callable[[], None]] = deque()
        self._clients: list[Client] = []  # whoever was served last comes last
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

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        with self._condition:
            if self._stopping or not self._thread.is_alive():
                raise SessionClosedError("The server is stopping.")
            self._calls.append(run)
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
        while True:
            call, batch = self._next()
            if call is not None:
                call()
            elif batch:
                self._step(batch)
            else:
                return

    def _next(self) -> tuple[Callable[[], None] | None, list[Client]]:
        """What is to be done: calls before steps. Nothing once the worker is to stop."""
        with self._condition:
            while not self._stopping:
                if self._calls:
                    return self._calls.popleft(), []
                if batch := self._batch():
                    return None, batch
                self._condition.wait(_IDLE_LOOK)
            while self._calls:
                # Whoever waits for it would wait for ever.
                del self._calls[0]
            return None, []

    def _batch(self) -> list[Client]:
        if self.pipeline is None:
            return []
        many = self.pipeline.sessions_together
        chosen = [client for client in self._clients if client.ready()][:many]
        for client in chosen:
            self._clients.remove(client)
            self._clients.append(client)
        return chosen

    def _step(self, batch: list[Client]) -> None:
        work = [(client, chunk) for client in batch if (chunk := _taken(client)) is not None]
        if not work or self.pipeline is None:
            return
        clients, chunks = zip(*work, strict=True)
        begun = time.perf_counter()
        try:
            results = self.pipeline.step_many([client.session for client in clients], chunks)
        except Exception as error:
            if len(work) == 1:
                self._fail(clients[0], error)
                return
            # One of them spoils it for all: alone, each gets what it would have got, or its own failure.
            _log.warning("a step of %d sessions failed, each is stepped alone: %s", len(work), error)
            give_back_memory()
            for client, chunk in work:
                self._step_alone(client, chunk)
            return
        seconds = time.perf_counter() - begun
        for client, chunk, result in zip(clients, chunks, results, strict=True):
            client.give(chunk, result, result.seconds or seconds, len(work))

    def _step_alone(self, client: Client, chunk: FrameChunk) -> None:
        begun = time.perf_counter()
        try:
            result = client.session.step(chunk)
        except Exception as error:
            self._fail(client, error)
        else:
            client.give(chunk, result, result.seconds or time.perf_counter() - begun, 1)

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
