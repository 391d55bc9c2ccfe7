"""The server's end of a pipeline's process: requests, their answers, the frames that follow, and its exit."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from personalive.errors import PipelineLostError
from personalive.media.types import Frames
from personalive.pipelines.interface import ProgressReport
from personalive.serving.process import messages
from personalive.serving.process.launch import exit_in_words, start

T = TypeVar("T")

LEAVE_S = 5.0
"""Seconds that a process has to end after it was asked to, or after it said that it will."""
_POLL_S = 1.0
_END = object()
"""Follows the last answer of a process."""
_log = logging.getLogger(__name__)


class ProcessConnection:
    """Start the process of a pipeline and talk to it.

    One request at a time is answered; any thread may send notices.
    """

    def __init__(self, environment: Mapping[str, str], on_exit: Callable[[str], None]) -> None:
        """`on_exit` is called on a thread, with a sentence, once the process ended without `kill` or `close`."""
        self._process, self._pipe = start(environment)
        self._on_exit = on_exit
        self._calling = threading.Lock()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._forgotten: SimpleQueue[int] = SimpleQueue()
        self._arriving: dict[int, Future[Frames]] = {}
        self._ending = False
        self.gpu_memory = 0
        """Bytes that tensors held of the device at the last answer."""
        self._reader = threading.Thread(target=self._receive, name="pipeline-answers", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def call(self, request: messages.Request[T], limit: float) -> T:
        """Ask and wait for the answer, at most `limit` seconds: a process that takes longer is killed.

        Raises what the request raised, or `PipelineLostError`.
        """
        with self._calling:
            self._send_forgotten()
            self._send(request)
            try:
                answer = self._answers.get(timeout=limit)
            except Empty:
                self._process.kill()
                answer = self._answers.get()
            value: T = self._value(answer)
            return value

    def load(self, request: messages.Load, report: ProgressReport) -> messages.Loaded:
        """Load the pipeline, however long that takes; `report` is called at least every second and may raise.

        Raises what loading or `report` raised, or `PipelineLostError`.
        """
        told = messages.Progress("starting the process", 0.0)
        with self._calling:
            self._send(request)
            while True:
                report(told.stage, told.share)
                with contextlib.suppress(Empty):
                    answer = self._answers.get(timeout=_POLL_S)
                    if not isinstance(answer, messages.Progress):
                        loaded: messages.Loaded = self._value(answer)
                        return loaded
                    told = answer

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
                self.call(messages.Close(), LEAVE_S)
        try:
            self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._pipe.close()
        self._reader.join(LEAVE_S)

    def _value(self, answer: Any) -> Any:
        if answer is _END:
            self._answers.put(_END)
            raise PipelineLostError(self._why_it_ended())
        if isinstance(answer, messages.Failure):
            if answer.fatal:
                # It ends now; what a spoiled device keeps from ending is ended by force.
                threading.Timer(LEAVE_S, self._process.kill).start()
                raise PipelineLostError("The pipeline does nothing any more but fail.") from answer.error
            raise answer.error
        assert isinstance(answer, messages.Result)
        self.gpu_memory = answer.gpu_memory
        return answer.value

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
                message = self._pipe.receive()
                if not isinstance(message, messages.StepFrames):
                    self._answers.put(message)
                elif (future := self._arriving.pop(message.number, None)) is not None:
                    future.set_result(message.images)
        except EOFError:
            pass
        except Exception:
            _log.exception("what the pipeline's process sent cannot be read")
            self._process.kill()
        self._answers.put(_END)
        reason = self._why_it_ended()
        while self._arriving:
            self._arriving.popitem()[1].set_exception(PipelineLostError(reason))
        if not self._ending:
            self._on_exit(reason)

    def _why_it_ended(self) -> str:
        try:
            code = self._process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            return "The pipeline's process does not answer any more."
        return f"The pipeline's process ended unexpectedly ({exit_in_words(code)})."
