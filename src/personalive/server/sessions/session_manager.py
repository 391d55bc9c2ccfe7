"""All live sessions, and how many there may be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from personalive.errors import DeviceFullError
from personalive.out_of_memory import is_out_of_memory
from personalive.pipelines.base import Pipeline, Reference, RunParameters, Session
from personalive.pipelines.parameters import build
from personalive.server.errors import BusyError, ConflictError, NotFoundError
from personalive.server.sessions.memory import give_back_memory, trim
from personalive.server.sessions.session import Stream
from personalive.server.sessions.worker import Worker
from personalive.server.telemetry import logs
from personalive.server.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)

_RETRY_AFTER_S = 10
_SILENT_S = 2.0
"""Seconds without video after which a session gives its slot to a newcomer: its client may be long gone."""
_TRIM_AFTER_S = 2.0
"""After the last session: its connection, with the codecs, is closed after it."""


class UnknownSessionError(NotFoundError):
    """An id that no live session has, or has any more."""

    def __init__(self) -> None:
        super().__init__("There is no such session; it may have ended.")


class Streams:
    """Use it on the event loop only."""

    def __init__(
        self,
        workers: Sequence[Worker],
        metrics: Metrics,
        *,
        limit: int,
        watermark: bool = False,
        mark: str = "",
    ) -> None:
        """`limit` is how many there may be for each worker; every id begins with `mark`."""
        self.limit = limit * len(workers)
        self._each = limit
        self._mark = mark
        self._workers = list(workers)
        self._metrics = metrics
        self._watermark = watermark
        self._live: dict[str, Stream] = {}
        self._opening: Counter[Worker] = Counter()
        self._placed: Counter[Worker] = Counter()

    def __len__(self) -> int:
        return len(self._live) + self._opening.total()

    def all(self) -> list[Stream]:
        """The live ones, oldest first."""
        return list(self._live.values())

    def get(self, id: str) -> Stream | None:
        """The live one of that id."""
        return self._live.get(id)

    def require(self, id: str) -> Stream:
        """The live one of that id. Raises `UnknownSessionError`."""
        stream = self.get(id)
        if stream is None:
            raise UnknownSessionError
        return stream

    @contextlib.contextmanager
    def place(self, ready: Callable[[Pipeline[Any, Any]], bool]) -> Iterator[Pipeline[Any, Any]]:
        """Hold a place for a session that is about to be opened: the pipeline that is `ready` with the most room.

        Raises `BusyError` when all slots are taken, and `ConflictError` where no pipeline is loaded.
        """
        pipelines = {worker: worker.pipeline for worker in self._workers}
        serving = [
            worker for worker, pipeline in pipelines.items() if pipeline is not None and ready(pipeline)
        ]
        if not serving:
            raise ConflictError("No pipeline is loaded: POST /api/v1/pipeline/load first.")
        worker = min(serving, key=self._taken)
        if self._taken(worker) >= self._each:
            raise self._full()
        self._placed[worker] += 1
        try:
            pipeline = pipelines[worker]
            assert pipeline is not None
            yield pipeline
        finally:
            self._placed[worker] -= 1

    async def make_room(self, ready: Callable[[Pipeline[Any, Any]], bool]) -> None:
        """Where all slots of pipelines that are `ready` are taken, end the session that is silent for longest.

        One that is paused, or had video within the last two seconds, stays.
        """
        serving = [each for each in self._workers if each.pipeline is not None and ready(each.pipeline)]
        if any(self._taken(worker) < self._each for worker in serving):
            return
        silent = [
            stream
            for stream in self._live.values()
            if stream.worker in serving and not stream.paused and stream.silence >= _SILENT_S
        ]
        if silent:
            longest = max(silent, key=lambda stream: stream.silence)
            await longest.end("taken_over", "No video came any more, and another client took this place.")

    def _count(self, worker: Worker) -> int:
        live = sum(stream.worker is worker for stream in self._live.values())
        return live + self._opening[worker]

    def _taken(self, worker: Worker) -> int:
        # A session that is being opened in the place that was held for it is one, not two.
        live = self._count(worker) - self._opening[worker]
        return live + max(self._opening[worker], self._placed[worker])

    def _full(self) -> BusyError:
        many = "session streams" if self.limit == 1 else "sessions stream"
        return BusyError(
            f"All slots are taken: {self.limit} {many} already. Try again later.", retry_after=_RETRY_AFTER_S
        )

    async def open(
        self,
        pipeline: Pipeline[Any, Any],
        reference_id: str,
        reference: Reference,
        parameters: Mapping[str, object],
    ) -> Stream:
        """A new session on that reference; `parameters` are run parameters by name.

        Raises `BusyError` when all slots are taken or the device has no memory for one more, `InputError` for
        parameters that cannot be.
        """
        checked = build(pipeline.run_parameters, parameters)
        worker = next((each for each in self._workers if each.pipeline is pipeline), None)
        if worker is None:
            raise ConflictError("The pipeline was replaced meanwhile: try again.")
        if self._count(worker) >= self._each:
            raise self._full()
        self._opening[worker] += 1
        try:
            session = await self._session(worker, pipeline, reference, checked)
            stream = Stream(
                self._mark + secrets.token_urlsafe(12),
                session,
                pipeline.info,
                reference_id,
                worker=worker,
                metrics=self._metrics,
                watermark=self._watermark,
            )
            stream.on_end.append(self._forget)
            self._live[stream.id] = stream
        finally:
            self._opening[worker] -= 1
        self._metrics.session_opened()
        logs.event("session_opened", session=stream.id, pipeline=pipeline.info.id, reference=reference_id)
        return stream

    @staticmethod
    async def _session(
        worker: Worker, pipeline: Pipeline[Any, Any], reference: Reference, parameters: RunParameters
    ) -> Session[Any]:
        try:
            return await _opened(worker, pipeline, reference, parameters)
        except DeviceFullError as error:
            message = str(error)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = "There is too little memory left for another session."
        # Here, since the error's traceback keeps alive what filled the memory.
        await worker.call(give_back_memory)
        raise BusyError(f"{message} Try again later.", retry_after=_RETRY_AFTER_S)

    async def end_all(self, message: str, reason: str = "server", *, of: Worker | None = None) -> None:
        """End every session, or those of one worker; their clients are told `message`."""
        ending = [stream for stream in self.all() if of is None or stream.worker is of]
        ended = await asyncio.gather(
            *(stream.end(reason, message) for stream in ending), return_exceptions=True
        )
        for error in ended:
            if isinstance(error, Exception):  # the others are ended all the same
                _log.error("a session did not end in order", exc_info=error)

    async def _forget(self, stream: Stream) -> None:
        self._live.pop(stream.id, None)
        if not self._live:
            asyncio.get_running_loop().call_later(_TRIM_AFTER_S, self._trim)

    def _trim(self) -> None:
        if not len(self):
            for worker in self._workers:
                with contextlib.suppress(RuntimeError):  # the server has stopped meanwhile
                    worker.converter.submit(trim)


async def _opened(
    worker: Worker, pipeline: Pipeline[Any, Any], reference: Reference, parameters: RunParameters
) -> Session[Any]:
    """Open a session on the worker's thread. One that is there only after the caller was cancelled is closed."""
    opening = asyncio.ensure_future(worker.call(pipeline.open_session, reference, parameters))

    def close_unused(done: asyncio.Future[Session[Any]]) -> None:
        if not done.cancelled() and done.exception() is None:
            asyncio.ensure_future(worker.call(done.result().close)).add_done_callback(_ignore_closed)

    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(close_unused)
        raise


def _ignore_closed(done: asyncio.Future[None]) -> None:
    if not done.cancelled() and isinstance(error := done.exception(), Exception):
        _log.debug("a session that nobody waited for did not close in order: %s", error)
