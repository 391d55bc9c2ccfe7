"""The server's end of a pipeline's process: requests, their answers, the frames that follow, and its exit."""

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
from personalive.pipelines.base import ProgressReport
from personalive.server.process import messages
from personalive.server.process.launch import exit_in_words, start

T = TypeVar("T")

LEAVE_S = 5.0
"""Seconds that a process has to end after it was asked to, or after it said that it will."""
_POLL_S = 1.0
_log = logging.getLogger(__name__)


class ProcessConnection:
    """Start the process of a pipeline and talk to it.

    Any thread may send requests and notices; requests are done and answered in their order.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        on_exit: Callable[[str], None],
        on_notice: Callable[[messages.Notice], None],
    ) -> None:
        """`on_exit` is called on a thread, with a sentence, once the process ended without `kill` or `close`.

        `on_notice` is called on the thread that receives, which it must not hold up.
        """
        self._process, self._pipe = start(environment)
        self._on_exit, self._on_notice = on_exit, on_notice
        self._asking = threading.Lock()
        self._asked: deque[Future[Any]] = deque()
        self._ended = False
        self._progress: SimpleQueue[messages.Progress | None] = SimpleQueue()
        self._limits: SimpleQueue[tuple[Future[Any], float | None] | None] = SimpleQueue()
        self._forgotten: SimpleQueue[int] = SimpleQueue()
        self._arriving: dict[int, Future[Frames]] = {}
        self._ending = False
        self.gpu_memory = 0
        """Bytes that tensors held of the device at the last answer."""
        self._reader = threading.Thread(target=self._receive, name="pipeline-answers", daemon=True)
        self._reader.start()
        threading.Thread(target=self._keep_limits, name="pipeline-limits", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def submit(self, request: messages.Request[T], limit: float | None) -> Future[T]:
        """Ask, and return what will hold the answer: what the request raised, or `PipelineLostError`, as well.

        A process that takes longer than `limit` seconds, once it has answered what was asked before, is killed.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        with self._asking:
            if self._ended:
                future.set_exception(PipelineLostError(self._why_it_ended()))
                return future
            self._asked.append(future)
            self._send_forgotten()
            self._send(request)
            self._limits.put((future, limit))
        return future

    def load(self, request: messages.Load, report: ProgressReport) -> messages.Loaded:
        """Load the pipeline, however long that takes; `report` is called at least every second and may raise.

        Raises what loading or `report` raised, or `PipelineLostError`.
        """
        told: messages.Progress | None = messages.Progress("starting the process", 0.0)
        loaded = self.submit(request, None)
        loaded.add_done_callback(lambda _: self._progress.put(None))
        while told is not None:
            report(told.stage, told.share)
            with contextlib.suppress(Empty):
                told = self._progress.get(timeout=_POLL_S)
        return loaded.result()

    def tell(self, notice: messages.Notice) -> None:
        """Say something that is not answered."""
        self._send(notice)

    def forget_later(self, reference: int) -> None:
        """Say with the next request that a reference is not needed any more.

        Nothing is locked or sent now, so that a finalizer may call it, which runs in the middle of anything.
        """
        self._forgotten.put(reference)

    def expect(self, number: int) -> Future[Frames]:
        """Return what will hold the frames of that number. Raises `PipelineLostError` in it if they never come."""
        return self._arriving.setdefault(number, Future())

    def expect_no_more(self, number: int) -> None:
        """Take the frames of that number as never coming."""
        self._arriving.pop(number, None)

    def kill(self) -> None:
        """End the process at once; who waits for it gets a `PipelineLostError`. May be called twice."""
        self._ending = True
        self._process.kill()

    def close(self) -> None:
        """End the process in order, by force where it does not leave. May be called twice."""
        self._ending = True
        if self.alive:
            with contextlib.suppress(PipelineLostError):  # it is gone then as well
                self.submit(messages.Close(), LEAVE_S).result()
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pipe.close()
        self._reader.join(LEAVE_S)

    def _answered(self, answer: messages.Result | messages.Failure) -> None:
        future = self._asked.popleft()
        if isinstance(answer, messages.Result):
            self.gpu_memory = answer.gpu_memory
            future.set_result(answer.value)
        elif answer.fatal:
            # It ends now; what a spoiled device keeps from ending is ended by force.
            threading.Timer(LEAVE_S, self._process.kill).start()
            lost = PipelineLostError("The pipeline does nothing any more but fail.")
            lost.__cause__ = answer.error
            future.set_exception(lost)
        else:
            future.set_exception(answer.error)

    def _keep_limits(self) -> None:
        """Kill the process when it takes too long for what it was asked. On a thread."""
        while (asked := self._limits.get()) is not None:
            future, limit = asked
            if not wait([future], limit).done:
                self._process.kill()

    def _send(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except (OSError, ValueError):
            # Half a message may be through, and no other can follow it. The end is told by the answers.
            self._process.kill()

    def _send_forgotten(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                self._send(messages.ForgetReference(self._forgotten.get_nowait()))

    def _receive(self) -> None:
        """Take what the process sends until it ends, then say so. On a thread."""
        try:
            while True:
                self._received(self._pipe.receive())
        except EOFError:
            pass
        except Exception:
            _log.exception("what the pipeline's process sent cannot be read")
            self._process.kill()
        reason = self._why_it_ended()
        with self._asking:
            self._ended = True
        self._limits.put(None)
        while self._asked:
            self._asked.popleft().set_exception(PipelineLostError(reason))
        while self._arriving:
            self._arriving.popitem()[1].set_exception(PipelineLostError(reason))
        if not self._ending:
            self._on_exit(reason)

    def _received(self, message: object) -> None:
        if isinstance(message, messages.Result | messages.Failure):
            self._answered(message)
        elif isinstance(message, messages.Progress):
            self._progress.put(message)
        elif isinstance(message, messages.Notice):
            self._on_notice(message)
        elif isinstance(message, messages.StepFrames):
            arriving = self._arriving.pop(message.number, None)
            if arriving is not None:
                arriving.set_result(message.images)

    def _why_it_ended(self) -> str:
        try:
            code = self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            return "The pipeline's process does not answer any more."
        return f"The pipeline's process ended unexpectedly ({exit_in_words(code)})."
