"""All live sessions, and the limit on their number."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from personalive.errors import DeviceOutOfMemoryError
from personalive.out_of_memory import is_out_of_memory
from personalive.pipelines.base import Pipeline, Reference, RunParameters, Session
from personalive.pipelines.parameters import build_run_parameters
from personalive.server.errors import ConflictError, NotFoundError, ServiceUnavailableError
from personalive.server.sessions.memory import malloc_trim, release_memory
from personalive.server.sessions.session import ServerSession
from personalive.server.sessions.worker import PipelineWorker
from personalive.server.telemetry import logs
from personalive.server.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)

_RETRY_AFTER_S = 10
_SILENCE_TIMEOUT_S = 2.0
"""Seconds without video after which a session's slot may go to a new client: its own may be gone."""
_TRIM_DELAY_S = 2.0
"""Seconds from the end of the last session: its connection and codecs are closed later than the session."""


class UnknownSessionError(NotFoundError):
    """Raised for an id that no live session has."""

    def __init__(self) -> None:
        super().__init__("There is no such session; it may have ended.")


class SessionManager:
    """The live sessions of a server. Use it on the event loop only."""

    def __init__(
        self,
        workers: Sequence[PipelineWorker],
        metrics: Metrics,
        *,
        limit: int,
        watermark: bool = False,
        id_prefix: str = "",
    ) -> None:
        """Set the `limit` of sessions for each worker, and the `id_prefix` with which every session's id begins."""
        self.limit = limit * len(workers)
        self._limit_per_worker = limit
        self._id_prefix = id_prefix
        self._workers = list(workers)
        self._metrics = metrics
        self._watermark = watermark
        self._sessions: dict[str, ServerSession] = {}
        self._opening: Counter[PipelineWorker] = Counter()
        self._reserved: Counter[PipelineWorker] = Counter()

    def __len__(self) -> int:
        return len(self._sessions) + self._opening.total()

    def all(self) -> list[ServerSession]:
        """Return the live sessions, oldest first."""
        return list(self._sessions.values())

    def get(self, id: str) -> ServerSession | None:
        """Return the live session with that id, None where there is none."""
        return self._sessions.get(id)

    def require(self, id: str) -> ServerSession:
        """Return the live session with that id. Raises `UnknownSessionError` where there is none."""
        session = self.get(id)
        if session is None:
            raise UnknownSessionError
        return session

    async def close(self, id: str) -> None:
        """End a session for its client. It is no error if it has ended already or never existed."""
        session = self.get(id)
        if session is not None:
            await session.end("client_closed")

    @contextlib.contextmanager
    def reserve_slot(self, is_ready: Callable[[Pipeline[Any, Any]], bool]) -> Iterator[Pipeline[Any, Any]]:
        """Reserve a slot for a session that is about to be opened; yield the ready pipeline with the most room.

        Raises `ServiceUnavailableError` when all slots are taken, and `ConflictError` where no pipeline is loaded.
        """
        pipelines = {worker: worker.pipeline for worker in self._workers}
        serving = [
            worker for worker, pipeline in pipelines.items() if pipeline is not None and is_ready(pipeline)
        ]
        if not serving:
            raise ConflictError("No pipeline is loaded: POST /api/v1/pipeline/load first.")
        worker = min(serving, key=self._count_taken)
        if self._count_taken(worker) >= self._limit_per_worker:
            raise self._capacity_error()
        self._reserved[worker] += 1
        try:
            pipeline = pipelines[worker]
            assert pipeline is not None
            yield pipeline
        finally:
            self._reserved[worker] -= 1

    async def evict_silent_session(self, is_ready: Callable[[Pipeline[Any, Any]], bool]) -> None:
        """End the session that was silent for longest if all slots of the ready pipelines are taken.

        Sessions that are paused, or had video within the last two seconds, are not ended.
        """
        serving = [each for each in self._workers if each.pipeline is not None and is_ready(each.pipeline)]
        if any(self._count_taken(worker) < self._limit_per_worker for worker in serving):
            return
        silent = [
            session
            for session in self._sessions.values()
            if session.worker in serving and not session.paused and session.silent_for_s >= _SILENCE_TIMEOUT_S
        ]
        if silent:
            longest = max(silent, key=lambda session: session.silent_for_s)
            await longest.end("taken_over", "No video arrived any more, and another client needed the slot.")

    def _count_sessions(self, worker: PipelineWorker) -> int:
        live = sum(session.worker is worker for session in self._sessions.values())
        return live + self._opening[worker]

    def _count_taken(self, worker: PipelineWorker) -> int:
        # A session that is being opened in its reserved slot counts once, not twice.
        live = self._count_sessions(worker) - self._opening[worker]
        return live + max(self._opening[worker], self._reserved[worker])

    def _capacity_error(self) -> ServiceUnavailableError:
        many = "session streams" if self.limit == 1 else "sessions stream"
        return ServiceUnavailableError(
            f"All slots are taken: {self.limit} {many} already. Try again later.", retry_after=_RETRY_AFTER_S
        )

    async def open(
        self,
        pipeline: Pipeline[Any, Any],
        reference_id: str,
        reference: Reference,
        parameters: Mapping[str, object],
    ) -> ServerSession:
        """Open a session on that reference; `parameters` are run parameters by name.

        Raises:
            ServiceUnavailableError: All slots are taken, or the device has no memory for another session.
            ConflictError: The pipeline was replaced meanwhile.
            InputError: A parameter is invalid.
        """
        checked = build_run_parameters(pipeline.run_parameters, parameters)
        worker = next((each for each in self._workers if each.pipeline is pipeline), None)
        if worker is None:
            raise ConflictError("The pipeline was replaced meanwhile: try again.")
        if self._count_sessions(worker) >= self._limit_per_worker:
            raise self._capacity_error()
        self._opening[worker] += 1
        try:
            pipeline_session = await self._open_pipeline_session(worker, pipeline, reference, checked)
            session = ServerSession(
                self._id_prefix + secrets.token_urlsafe(12),
                pipeline_session,
                pipeline.info,
                reference_id,
                worker=worker,
                metrics=self._metrics,
                watermark=self._watermark,
            )
            session.on_end.append(self._on_session_end)
            self._sessions[session.id] = session
        finally:
            self._opening[worker] -= 1
        self._metrics.sessions_opened.inc()
        logs.event("session_opened", session=session.id, pipeline=pipeline.info.id, reference=reference_id)
        return session

    @staticmethod
    async def _open_pipeline_session(
        worker: PipelineWorker, pipeline: Pipeline[Any, Any], reference: Reference, parameters: RunParameters
    ) -> Session[Any]:
        try:
            return await _open_cancellable(worker, pipeline, reference, parameters)
        except DeviceOutOfMemoryError as error:
            message = str(error)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = "There is too little memory left for another session."
        # Outside `except`, since the error's traceback keeps alive what filled the memory.
        await worker.call(release_memory)
        raise ServiceUnavailableError(f"{message} Try again later.", retry_after=_RETRY_AFTER_S)

    async def end_all(
        self, message: str, reason: str = "server", *, worker: PipelineWorker | None = None
    ) -> None:
        """End every session, or those of one worker, and send `message` to their clients."""
        ending = [session for session in self.all() if worker is None or session.worker is worker]
        ended = await asyncio.gather(
            *(session.end(reason, message) for session in ending), return_exceptions=True
        )
        for error in ended:
            if isinstance(error, Exception):  # the other sessions have ended nevertheless
                _log.error("ending a session failed", exc_info=error)

    async def _on_session_end(self, session: ServerSession) -> None:
        self._sessions.pop(session.id, None)
        if not self._sessions:
            asyncio.get_running_loop().call_later(_TRIM_DELAY_S, self._trim_memory)

    def _trim_memory(self) -> None:
        if not len(self):
            for worker in self._workers:
                with contextlib.suppress(RuntimeError):  # the server has stopped meanwhile
                    worker.converter.submit(malloc_trim)


async def _open_cancellable(
    worker: PipelineWorker, pipeline: Pipeline[Any, Any], reference: Reference, parameters: RunParameters
) -> Session[Any]:
    """Open a session on the worker's thread. If the caller is cancelled first, the session is closed."""
    opening = asyncio.ensure_future(worker.call(pipeline.open_session, reference, parameters))

    def close_unused(done: asyncio.Future[Session[Any]]) -> None:
        if not done.cancelled() and done.exception() is None:
            asyncio.ensure_future(worker.call(done.result().close)).add_done_callback(_log_close_error)

    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(close_unused)
        raise


def _log_close_error(done: asyncio.Future[None]) -> None:
    if not done.cancelled() and isinstance(error := done.exception(), Exception):
        _log.debug("closing a session whose client had left failed: %s", error)
