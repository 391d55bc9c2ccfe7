"""The only thread that uses a pipeline: it steps all live sessions in turn, and runs other calls between two steps.

The session that has waited longest is stepped next, so sessions slow down evenly when there are more than the
machine can serve. A pipeline that can step several sessions in one call gets them together. A pipeline that queues
steps gets the next one shortly before the current one ends, so that it never waits for this process; it does not
get it earlier, since the next step should have the newest frames.
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
    """A session that the worker steps. Its methods are called on the worker's thread."""

    pipeline_session: Session[Any]

    def is_ready(self) -> bool:
        """Return whether `take_chunk` would return a chunk. It is called often, and must be quick."""

    def take_chunk(self) -> FrameChunk | None:
        """Take the next driving frames, or return None if they were dropped meanwhile."""

    def on_result(self, chunk: FrameChunk, animated: AnimatedChunk, seconds: float, batch_size: int) -> None:
        """Take what a step of `batch_size` sessions made of a chunk in `seconds`."""

    def on_error(self, error: Exception) -> None:
        """Take the error because of which the session is not stepped any more."""


@dataclass(eq=False)
class _PendingStep:
    """A step that was submitted at `started_at`, in seconds of `perf_counter`, and should take `expected_s`."""

    clients: list[Steppable]
    chunks: list[FrameChunk]
    result: Future[list[AnimatedChunk]]
    started_at: float
    expected_s: float


class PipelineWorker:
    """A worker thread. Start it first and stop it last. A server has one for each GPU that it uses."""

    def __init__(self, name: str = "", environment: Mapping[str, str] | None = None) -> None:
        """Set the `name`, shown if there are several, and what to add to the pipeline process's `environment`."""
        self.name = name
        self.environment = dict(environment or {})
        self.pipeline: Pipeline[Any, Any] | None = None
        """The pipeline that steps the sessions. It is set on the worker's thread only."""
        self.converter = ThreadPoolExecutor(1, "converter")
        """Converts frames to images and back while steps run. It has one thread, so that order is kept."""
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._steppables: list[Steppable] = []  # the one stepped last comes last
        self._steps: deque[_PendingStep] = deque()
        self._last_step_s: WeakKeyDictionary[Steppable, float] = WeakKeyDictionary()
        """How long the last step of each session took, in seconds."""
        self._condition = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop after the current step, waiting `timeout` seconds at most.

        Calls that still wait raise `SessionClosedError`.
        """
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self.converter.shutdown(wait=False, cancel_futures=True)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function on the worker's thread between two steps, and return or raise what it does.

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
        """Return whether a call returns within `timeout` seconds."""
        try:
            await asyncio.wait_for(self.call(int), timeout)
        except (TimeoutError, SessionClosedError):
            return False
        return True

    def add(self, steppable: Steppable) -> None:
        """Step this session too. It may be called on any thread."""
        with self._condition:
            self._steppables.append(steppable)
            self._condition.notify()

    def remove(self, client: Steppable) -> None:
        """Stop stepping the session. It may be called on any thread.

        Only on the worker's own thread has a step that was submitted before been delivered already.
        """
        with self._condition:
            if client in self._steppables:
                self._steppables.remove(client)

    def wake(self) -> None:
        """Tell the worker that a session may have become ready. It may be called on any thread."""
        with self._condition:
            self._condition.notify()

    def _run(self) -> None:
        while (task := self._next_task()) is not None:
            task()

    def _next_task(self) -> Callable[[], None] | None:
        """Return the next task (finish a step, run a call, submit a step), or None once the worker is to stop."""
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
        """Return the seconds until the next step may be submitted."""
        if not self._steps:
            return 0.0
        pipeline, current = self.pipeline, self._steps[0]
        # If a step of several sessions fails, each is stepped again, so none of them may have been stepped since.
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
        """Submit a step of these sessions."""
        begun = time.perf_counter()
        work = [(client, chunk) for client in steppables if (chunk := _take_chunk(client)) is not None]
        if not work or self.pipeline is None:
            return
        clients, chunks = (list(part) for part in zip(*work, strict=True))
        made = self.pipeline.submit_steps([client.pipeline_session for client in clients], chunks)
        expected = max(self._last_step_s.get(client, math.inf) for client in clients)
        self._steps.append(_PendingStep(clients, chunks, made, begun, expected))
        made.add_done_callback(lambda _: self.wake())

    def _finish_step(self) -> None:
        """Wait for the step that was submitted first, and deliver its results."""
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
        # One session can make the step fail for all. Stepped alone, each gets its own result or its own error.
        _log.warning("a step of %d sessions failed, so each is stepped alone: %s", len(step.clients), error)
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
