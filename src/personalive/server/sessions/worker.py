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
from personalive.server.sessions.memory import release_memory

P = ParamSpec("P")
T = TypeVar("T")

_STOPPING_MESSAGE = "The server is stopping."
_log = logging.getLogger(__name__)

_IDLE_POLL_S = 0.5
_SUBMIT_AHEAD_S = 0.005
"""Seconds before the expected end of a step when the next one is asked for."""


class Steppable(Protocol):
    """What the worker steps. All of it is called on the worker's thread."""

    pipeline_session: Session[Any]

    def is_ready(self) -> bool:
        """Whether `take_chunk` would give a chunk. Quick: asked often."""

    def take_chunk(self) -> FrameChunk | None:
        """The next driving frames, or None if they are gone by now."""

    def on_result(self, chunk: FrameChunk, animated: AnimatedChunk, seconds: float, batch_size: int) -> None:
        """What a step made of them in `seconds`, `batch_size` with so many sessions in all."""

    def on_error(self, error: Exception) -> None:
        """The session broke down, and is stepped no more."""


@dataclass(eq=False)
class _PendingStep:
    """A step that was asked for: `started_at` in seconds of `perf_counter`, and how long it should take."""

    clients: list[Steppable]
    chunks: list[FrameChunk]
    result: Future[list[AnimatedChunk]]
    started_at: float
    expected_s: float


class PipelineWorker:
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
        self._steppables: list[Steppable] = []  # whoever was served last comes last
        self._steps: deque[_PendingStep] = deque()
        self._last_step_s: WeakKeyDictionary[Steppable, float] = WeakKeyDictionary()
        """How long the last step of each took."""
        self._condition = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """End after the step at hand, or after `timeout` seconds without it; calls still waiting are cancelled."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self.converter.shutdown(wait=False, cancel_futures=True)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it on the worker's thread between two steps, and return or raise what it does.

        Raises `SessionClosedError` when the worker has stopped.
        """
        future: Future[T] = Future()
        with self._condition:
            if self._stopping or not self._thread.is_alive():
                raise SessionClosedError(_STOPPING_MESSAGE)
            self._calls.append((future, partial(function, *args, **kwargs)))
            self._condition.notify()
        return await asyncio.wrap_future(future)

    async def is_responsive(self, timeout: float = 5.0) -> bool:
        """Whether a call comes back within so many seconds."""
        try:
            await asyncio.wait_for(self.call(int), timeout)
        except (TimeoutError, SessionClosedError):
            return False
        return True

    def add(self, steppable: Steppable) -> None:
        """Step this one too. Any thread."""
        with self._condition:
            self._steppables.append(steppable)
            self._condition.notify()

    def remove(self, client: Steppable) -> None:
        """Step it no more. Any thread; a step at hand is finished and given first only on the worker's own."""
        with self._condition:
            if client in self._steppables:
                self._steppables.remove(client)

    def wake(self) -> None:
        """A client may have become ready. Any thread."""
        with self._condition:
            self._condition.notify()

    def _run(self) -> None:
        while (task := self._next_task()) is not None:
            task()

    def _next_task(self) -> Callable[[], None] | None:
        """What is to be done: steps that were asked for, calls, other steps. None once the worker is to stop."""
        with self._condition:
            while not self._stopping:
                if self._calls:
                    return self._finish_step if self._steps else self._run_call
                if self._steps and self._steps[0].result.done():
                    return self._finish_step
                if (pause := self._seconds_until_submit()) <= 0 and (batch := self._choose_batch()):
                    return partial(self._submit_step, batch)
                self._condition.wait(pause if pause > 0 else _IDLE_POLL_S)
            if self._steps:
                return self._finish_step
            for future, _ in self._calls:
                future.set_exception(SessionClosedError(_STOPPING_MESSAGE))
            self._calls.clear()
            return None

    def _seconds_until_submit(self) -> float:
        """Seconds until a step may be asked for."""
        if not self._steps:
            return 0.0
        pipeline, current = self.pipeline, self._steps[0]
        # Where several are stepped together and fail, each is stepped again, and none may have gone on meanwhile.
        if (
            len(self._steps) > 1
            or pipeline is None
            or not pipeline.queues_steps
            or pipeline.session_batch_size > 1
        ):
            return _IDLE_POLL_S
        return min(
            current.started_at + current.expected_s - _SUBMIT_AHEAD_S - time.perf_counter(), _IDLE_POLL_S
        )

    def _run_call(self) -> None:
        future, function = self._calls.popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    def _choose_batch(self) -> list[Steppable]:
        if self.pipeline is None:
            return []
        many = self.pipeline.session_batch_size
        chosen = [client for client in self._steppables if client.is_ready()][:many]
        for client in chosen:
            self._steppables.remove(client)
            self._steppables.append(client)
        return chosen

    def _submit_step(self, steppables: list[Steppable]) -> None:
        """Ask for a step of these."""
        begun = time.perf_counter()
        work = [(client, chunk) for client in steppables if (chunk := _take_chunk(client)) is not None]
        if not work or self.pipeline is None:
            return
        clients, chunks = (list(part) for part in zip(*work, strict=True))
        made = self.pipeline.submit_steps([client.session for client in clients], chunks)
        expected = max(self._last_step_s.get(client, math.inf) for client in clients)
        self._steps.append(_PendingStep(clients, chunks, made, begun, expected))
        made.add_done_callback(lambda _: self.wake())

    def _finish_step(self) -> None:
        """Wait for the step that was asked for first, and give what it made."""
        step = self._steps.popleft()
        try:
            results = step.result.result()
        except Exception as error:
            self._on_step_error(step, error)
            results = []
        now = time.perf_counter()
        if self._steps:
            self._steps[0].started_at = now
        for client, chunk, result in zip(step.clients, step.chunks, results, strict=False):
            self._deliver(client, chunk, result, now - step.started_at, len(step.clients))

    def _deliver(
        self, client: Steppable, chunk: FrameChunk, result: AnimatedChunk, elapsed_s: float, batch_size: int
    ) -> None:
        seconds = self._last_step_s[client] = result.seconds or elapsed_s
        client.on_result(chunk, result, seconds, batch_size)

    def _on_step_error(self, step: _PendingStep, error: Exception) -> None:
        if len(step.clients) == 1:
            self._fail_client(step.clients[0], error)
            return
        # One of them spoils it for all: alone, each gets what it would have got, or its own failure.
        _log.warning("a step of %d sessions failed, each is stepped alone: %s", len(step.clients), error)
        release_memory()
        for client, chunk in zip(step.clients, step.chunks, strict=True):
            self._step_alone(client, chunk)

    def _step_alone(self, client: Steppable, chunk: FrameChunk) -> None:
        begun = time.perf_counter()
        try:
            result = client.pipeline_session.step(chunk)
        except Exception as error:
            self._fail_client(client, error)
        else:
            self._deliver(client, chunk, result, time.perf_counter() - begun, 1)

    def _fail_client(self, client: Steppable, error: Exception) -> None:
        self.remove(client)
        client.on_error(error)
        release_memory()


def _take_chunk(client: Steppable) -> FrameChunk | None:
    try:
        return client.take_chunk()
    except Exception as error:
        client.on_error(error)
        return None
