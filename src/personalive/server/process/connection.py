"""The server's connection to a pipeline's process: requests, answers, frames that follow them, and the exit."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from personalive.errors import PipelineLostError
from personalive.media.types import Frames
from personalive.pipelines.base import LoadProgressCallback
from personalive.server.process import messages
from personalive.server.process.launch import describe_exit_code, start_process

T = TypeVar("T")

EXIT_TIMEOUT_S = 5.0
"""Seconds that a process has to end after it was asked to, or after it announced its end."""
_PROGRESS_POLL_S = 1.0
_log = logging.getLogger(__name__)


class ProcessConnection:
    """A pipeline's process, which it starts, and the messages to and from it.

    Any thread may send requests and notices. Requests are handled and answered in order.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        on_exit: Callable[[str], None],
        on_notice: Callable[[messages.Notification], None],
    ) -> None:
        """`on_exit` is called on a thread, with a sentence, once the process ended without `kill` or `close`.

        `on_notice` is called on the receiving thread, which it must not block.
        """
        self._process, self._pipe = start_process(environment)
        self._on_exit, self._on_notice = on_exit, on_notice
        self._send_lock = threading.Lock()
        self._pending_answers: deque[Future[Any]] = deque()
        self._has_ended = False
        self._progress: SimpleQueue[messages.LoadProgressUpdate | None] = SimpleQueue()
        self._timeouts: SimpleQueue[tuple[Future[Any], float | None] | None] = SimpleQueue()
        self._released_references: SimpleQueue[int] = SimpleQueue()
        self._pending_frames: dict[int, Future[Frames]] = {}
        self._exit_expected = False
        self.gpu_memory_bytes = 0
        """Bytes of device memory that tensors held at the last answer."""
        self._reader = threading.Thread(target=self._receive_loop, name="pipeline-answers", daemon=True)
        self._reader.start()
        threading.Thread(target=self._enforce_timeouts, name="pipeline-limits", daemon=True).start()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def submit(self, request: messages.Request[T], timeout: float | None) -> Future[T]:
        """Send a request, and return a future of its answer.

        The future raises what the request raised, or `PipelineLostError`. A process that takes longer than
        `timeout` seconds, counted from its answer to the previous request, is killed.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        with self._send_lock:
            if self._has_ended:
                future.set_exception(PipelineLostError(self._describe_exit()))
                return future
            self._pending_answers.append(future)
            self._send_released_references()
            self._send(request)
            self._timeouts.put((future, timeout))
        return future

    def load(self, request: messages.LoadPipeline, report: LoadProgressCallback) -> messages.LoadedPipeline:
        """Load the pipeline, however long that takes; `report` is called at least every second and may raise.

        Raises what loading or `report` raised, or `PipelineLostError`.
        """
        told: messages.LoadProgressUpdate | None = messages.LoadProgressUpdate("starting the process", 0.0)
        loaded = self.submit(request, None)
        loaded.add_done_callback(lambda _: self._progress.put(None))
        while told is not None:
            report(told.stage, told.fraction)
            with contextlib.suppress(Empty):
                told = self._progress.get(timeout=_PROGRESS_POLL_S)
        return loaded.result()

    def notify(self, notice: messages.Notification) -> None:
        """Send a notice, which is not answered."""
        self._send(notice)

    def release_reference_later(self, reference: int) -> None:
        """Release a reference in the process along with the next request.

        Nothing is locked or sent now, so that a finalizer, which may interrupt any code, can call it.
        """
        self._released_references.put(reference)

    def expect_frames(self, number: int) -> Future[Frames]:
        """Return a future of the frames with that number. It raises `PipelineLostError` if they never arrive."""
        return self._pending_frames.setdefault(number, Future())

    def cancel_frames(self, number: int) -> None:
        """Forget the frames of that number, which will not arrive."""
        self._pending_frames.pop(number, None)

    def kill(self) -> None:
        """End the process at once; pending requests raise `PipelineLostError`. May be called twice."""
        self._exit_expected = True
        self._process.kill()

    def close(self) -> None:
        """Close the pipeline and end the process, by force if it does not end in time. May be called twice."""
        self._exit_expected = True
        if self.is_alive:
            with contextlib.suppress(PipelineLostError):  # it is gone then as well
                self.submit(messages.ClosePipeline(), EXIT_TIMEOUT_S).result()
        try:
            self._process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pipe.close()
        self._reader.join(EXIT_TIMEOUT_S)

    def _on_answer(self, answer: messages.RequestResult | messages.RequestFailure) -> None:
        future = self._pending_answers.popleft()
        if isinstance(answer, messages.RequestResult):
            self.gpu_memory_bytes = answer.gpu_memory_bytes
            future.set_result(answer.value)
        elif answer.fatal:
            # The process ends now. If an unusable device keeps it from ending, it is killed.
            threading.Timer(EXIT_TIMEOUT_S, self._process.kill).start()
            lost = PipelineLostError("The pipeline does nothing any more but fail.")
            lost.__cause__ = answer.error
            future.set_exception(lost)
        else:
            future.set_exception(answer.error)

    def _enforce_timeouts(self) -> None:
        """Kill the process when a request takes too long. Runs on a separate thread."""
        while (item := self._timeouts.get()) is not None:
            future, limit = item
            if not wait([future], limit).done:
                self._process.kill()

    def _send(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except (OSError, ValueError):
            # A part of the message may be sent, so no other can follow. The pending answers report the end.
            self._process.kill()

    def _send_released_references(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                self._send(messages.ReleaseReference(self._released_references.get_nowait()))

    def _receive_loop(self) -> None:
        """Receive messages until the process ends, then report its end. Runs on a separate thread."""
        try:
            while True:
                self._on_message(self._pipe.receive())
        except EOFError:
            pass
        except Exception:
            _log.exception("what the pipeline's process sent cannot be read")
            self._process.kill()
        reason = self._describe_exit()
        with self._send_lock:
            self._has_ended = True
        self._timeouts.put(None)
        while self._pending_answers:
            self._pending_answers.popleft().set_exception(PipelineLostError(reason))
        while self._pending_frames:
            self._pending_frames.popitem()[1].set_exception(PipelineLostError(reason))
        if not self._exit_expected:
            self._on_exit(reason)

    def _on_message(self, message: object) -> None:
        if isinstance(message, messages.RequestResult | messages.RequestFailure):
            self._on_answer(message)
        elif isinstance(message, messages.LoadProgressUpdate):
            self._progress.put(message)
        elif isinstance(message, messages.Notification):
            self._on_notice(message)
        elif isinstance(message, messages.StepFrames):
            arriving = self._pending_frames.pop(message.number, None)
            if arriving is not None:
                arriving.set_result(message.images)

    def _describe_exit(self) -> str:
        try:
            code = self._process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return "The pipeline's process does not answer any more."
        return f"The pipeline's process ended unexpectedly ({describe_exit_code(code)})."
