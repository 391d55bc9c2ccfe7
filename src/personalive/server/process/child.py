"""The process of one pipeline: `python -m personalive.server.process.child`, started by `launch.py`.

Requests arrive on standard input and are handled in order on the main thread. Another thread receives them, so that
driving frames arrive during a step. Further threads prepare the sessions' frames as they arrive. The process ends
when its input ends, since the server is then gone.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from importlib import import_module
from queue import SimpleQueue
from typing import Any

import numpy as np

from personalive.errors import PersonaLiveError
from personalive.media.types import Image
from personalive.out_of_memory import is_out_of_memory
from personalive.pipelines.base import FrameChunk, Pipeline, Reference, Session
from personalive.pipelines.fusing import fuse_reference
from personalive.server.process import messages
from personalive.server.process.message_pipe import MessagePipe, SocketStream
from personalive.server.process.remote_errors import make_portable
from personalive.server.sessions.memory import (
    freeze_gc,
    gpu_memory_bytes,
    malloc_trim,
    release_memory,
)
from personalive.server.telemetry import logs

_MAX_PREPARE_THREADS = 4
EXIT_BROKEN = 70
"""The exit code of a process whose pipeline only fails any more (EX_SOFTWARE of sysexits.h)."""
_MAX_CONSECUTIVE_FAILURES = 2
"""After this number of unexpected failures the pipeline counts as broken if no session can be tried."""
_log = logging.getLogger(__name__)


class SessionSlot:
    """A session with the driving frames that it was sent and that no step has used yet."""

    def __init__(
        self, session: Session[Any], executor: ThreadPoolExecutor, on_prepared: Callable[[float], None]
    ) -> None:
        """`executor` has one thread, which several sessions may share. `on_prepared` is called on it."""
        self.session = session
        self.prepares_frames = type(session).prepare is not Session.prepare
        self._frames: deque[tuple[float, Image, Future[None] | None]] = deque()
        self._executor = executor
        self._on_prepared = on_prepared
        self._lock = threading.Lock()

    def prepare(self, image: Image, at: float) -> None:
        """Keep a frame for its step, and prepare it meanwhile."""
        with self._lock:
            prepared = self._executor.submit(self._prepare_frame, image, at) if self.prepares_frames else None
            self._frames.append((at, image, prepared))

    def _prepare_frame(self, image: Image, at: float) -> None:
        self.session.prepare(image, at)
        self._on_prepared(at)

    def discard(self, at: float) -> None:
        """Drop a frame. If it was prepared already, drop the result once the results of earlier frames exist."""
        with self._lock:
            for item in self._frames:
                if item[0] == at:
                    self._frames.remove(item)
                    if item[2] is not None and not item[2].cancel():
                        self._executor.submit(self.session.discard, at)
                    return

    def take_chunk(self, times: tuple[float, ...]) -> FrameChunk:
        """Return the frames of those times once they are prepared, and drop earlier ones.

        Frames with the same time count as one frame. Raises `RuntimeError` if a frame never arrived.
        """
        wanted = set(times)
        with self._lock:
            chosen = {at: (image, prepared) for at, image, prepared in self._frames if at in wanted}
            for at, _, prepared in self._frames:
                if prepared is not None and at < times[-1] and at not in wanted:
                    prepared.cancel()
            self._frames = deque(item for item in self._frames if item[0] > times[-1])
        if missing := [at for at in times if at not in chosen]:
            raise RuntimeError(f"{len(missing)} of {len(times)} driving frames never came")
        for _, prepared in chosen.values():
            if prepared is not None:
                prepared.result()
        return FrameChunk([chosen[at][0] for at in times], np.array(times, np.float64))

    def close(self) -> None:
        """Cancel the preparation of frames, then close the session."""
        with self._lock:
            pending = [prepared for _, _, prepared in self._frames if prepared is not None]
            self._frames.clear()
        wait([prepared for prepared in pending if not prepared.cancel()])
        self.session.close()


class PipelineServer:
    """The handler of the server's requests, which detects when the pipeline is broken."""

    def __init__(self, pipe: MessagePipe) -> None:
        self._pipe = pipe
        self._requests: SimpleQueue[messages.Request[Any]] = SimpleQueue()
        self._pipeline: Pipeline[Any, Any] | None = None
        self._references: dict[int, Reference] = {}
        self._sessions: dict[int, SessionSlot] = {}
        self._probe_reference: Reference | None = None
        self._unsent_frames: deque[messages.StepFrames] = deque()
        self._sender = ThreadPoolExecutor(1, "frames")
        # A thread for each of many sessions would leave few cores to the server.
        count = min(max((os.cpu_count() or 1) // 2, 1), _MAX_PREPARE_THREADS)
        self._prepare_executors = itertools.cycle([ThreadPoolExecutor(1, "prepare") for _ in range(count)])
        self._failures = 0
        self._broken = False
        self._handlers: dict[type, Callable[[Any], Any]] = {
            messages.LoadPipeline: self._load,
            messages.FuseReference: self._fuse,
            messages.OpenSession: self._open_session,
            messages.StepSessions: self._step,
            messages.CallSession: self._call_session,
            messages.SwitchReference: self._switch_reference,
            messages.ClosePipeline: self._close,
        }

    def run(self) -> int:
        """Answer until the pipeline is closed or broken; return the process's exit code."""
        threading.Thread(target=self._receive, name="receive", daemon=True).start()
        while True:
            request = self._requests.get()
            answer = self._handle_request(request)
            try:
                self._pipe.send(answer)
            except (OSError, ValueError):
                return 0  # the server is gone
            # The next request need not wait until all pixels are sent.
            while self._unsent_frames:
                self._sender.submit(self._send, self._unsent_frames.popleft())
            if self._broken:
                return EXIT_BROKEN
            if isinstance(request, messages.ClosePipeline):
                return 0

    def _send(self, message: messages.StepFrames | messages.Notification) -> None:
        with contextlib.suppress(OSError, ValueError):  # the server is gone
            self._pipe.send(message)

    def _receive(self) -> None:
        while True:
            try:
                message = self._pipe.receive()
            except EOFError:
                # At once: the current step may take long, and nobody would receive its result.
                os._exit(0)
            except BaseException:  # such as a pipeline's module that cannot be imported
                _log.exception("what the server sent cannot be read")
                os._exit(EXIT_BROKEN)
            if isinstance(message, messages.Notification):
                self._handle_notice(message)
            else:
                self._requests.put(message)

    def _handle_notice(self, notice: messages.Notification) -> None:
        if isinstance(notice, messages.ReleaseReference):
            self._references.pop(notice.reference, None)
        elif isinstance(notice, messages.PrepareFrame | messages.DiscardFrame):
            entry = self._sessions.get(notice.session)
            # A frame may come late, for a session that is closed or being closed.
            with contextlib.suppress(RuntimeError):
                if entry is not None and isinstance(notice, messages.PrepareFrame):
                    entry.prepare(notice.image, notice.time)
                elif entry is not None:
                    entry.discard(notice.time)

    def _handle_request(
        self, request: messages.Request[Any]
    ) -> messages.RequestResult | messages.RequestFailure:
        try:
            value = self._handlers[type(request)](request)
        except Exception as error:
            told, full = make_portable(error), is_out_of_memory(error)
            unexpected = not (full or isinstance(error, PersonaLiveError))
            if unexpected:
                _log.exception("%s failed", type(request).__name__)
        else:
            if not isinstance(request, messages.CallSession):
                self._failures = 0
            return messages.RequestResult(value, gpu_memory_bytes())
        # After the handler, since the exception's traceback kept alive what the request had made.
        if full:
            release_memory()
        if unexpected and not isinstance(request, messages.LoadPipeline):
            self._broken = self._is_broken()
        return messages.RequestFailure(told, fatal=self._broken)

    def _is_broken(self) -> bool:
        """Return whether a new session fails too, as after a fault that makes a CUDA context unusable."""
        self._failures += 1
        if self._pipeline is None or self._probe_reference is None:
            return self._failures >= _MAX_CONSECUTIVE_FAILURES
        try:
            self._probe_session(self._pipeline, self._probe_reference)
        except Exception as error:
            if is_out_of_memory(error):
                return False
            _log.error("a new session fails as well: the pipeline is started again", exc_info=error)
            return True
        return False

    @staticmethod
    def _probe_session(pipeline: Pipeline[Any, Any], reference: Reference) -> None:
        count = pipeline.info.chunk_frames
        with pipeline.open_session(reference) as session:
            session.step(FrameChunk([reference.image] * count, np.arange(count) / 25))

    def _require_pipeline(self) -> Pipeline[Any, Any]:
        if self._pipeline is None:
            raise RuntimeError("no pipeline is loaded")
        return self._pipeline

    def _load(self, request: messages.LoadPipeline) -> messages.LoadedPipeline:
        logs.configure_logging(request.log_format, request.log_level)
        module, _, name = request.pipeline.partition(":")
        pipeline: type[Pipeline[Any, Any]] = getattr(import_module(module), name)
        loaded = pipeline.load(
            request.parameters,
            lambda stage, share: self._pipe.send(messages.LoadProgressUpdate(stage, share)),
        )
        self._pipeline = loaded
        freeze_gc()
        return messages.LoadedPipeline(
            info=loaded.info,
            parameters=loaded.parameters,
            warnings=loaded.warnings,
            seconds_per_frame=loaded.seconds_per_frame(),
            sessions_together=loaded.session_batch_size,
            notes=loaded.notes,
        )

    def _fuse(self, request: messages.FuseReference) -> messages.FusedReferenceInfo:
        reference = fuse_reference(
            self._require_pipeline(), request.image, request.face_box, allow_no_face=request.allow_no_face
        )
        self._references[request.reference] = self._probe_reference = reference
        return messages.FusedReferenceInfo(reference.id, reference.image, reference.face)

    def _open_session(self, request: messages.OpenSession) -> messages.OpenedSession:
        reference = self._references[request.reference]
        session = self._require_pipeline().open_session(reference, request.parameters, seed=request.seed)

        def report_prepared(at: float) -> None:
            self._send(messages.FramePrepared(request.session, at))

        entry = SessionSlot(session, next(self._prepare_executors), report_prepared)
        self._sessions[request.session] = entry
        self._probe_reference = reference
        return messages.OpenedSession(session.parameters, entry.prepares_frames)

    def _step(self, request: messages.StepSessions) -> list[messages.StepResult]:
        entries = [self._sessions[item.session] for item in request.chunks]
        chunks = [entry.take_chunk(item.times) for entry, item in zip(entries, request.chunks, strict=True)]
        begun = time.perf_counter()
        stepped = self._require_pipeline().step_many([entry.session for entry in entries], chunks)
        seconds = time.perf_counter() - begun
        answers = [
            messages.StepResult(made.times, made.states, seconds, dict(entry.session.stats()))
            for entry, made in zip(entries, stepped, strict=True)
        ]
        for item, made in zip(request.chunks, stepped, strict=True):
            self._unsent_frames.append(messages.StepFrames(item.frames_number, made.images))
        return answers

    def _call_session(self, request: messages.CallSession) -> Any:
        if request.method == "close":
            self._sessions.pop(request.session).close()
            if not self._sessions:
                malloc_trim()
            return None
        return getattr(self._sessions[request.session].session, request.method)(*request.arguments)

    def _switch_reference(self, request: messages.SwitchReference) -> None:
        self._sessions[request.session].session.switch_reference(self._references[request.reference])

    def _close(self, request: messages.ClosePipeline) -> None:
        del request
        for entry in self._sessions.values():
            entry.close()
        if self._pipeline is not None:
            self._pipeline.close()


def main() -> int:
    """Serve on standard input and output."""
    # Ctrl-C reaches every process of a terminal, and a service manager may send SIGTERM to all of a service: the
    # server decides what they mean and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    pipe = _open_pipe()
    # Nothing else may use standard input and output: a library's print would break the protocol.
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    sys.setswitchinterval(0.001)
    code = PipelineServer(pipe).run()
    if code == EXIT_BROKEN:
        # Skip the interpreter's shutdown: destructors on an unusable device may never return.
        logging.shutdown()
        os._exit(code)
    return code


def _open_pipe() -> MessagePipe:
    """Return the message pipe on standard input and output, which are one socket or two pipes."""
    if stat.S_ISSOCK(os.fstat(0).st_mode):
        stream = SocketStream(socket.socket(fileno=os.dup(0)))
        return MessagePipe(stream, stream)
    return MessagePipe(os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb"))


if __name__ == "__main__":
    sys.exit(main())
