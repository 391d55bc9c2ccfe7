"""All live sessions, and how many there may be."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from personalive.pipelines.interface import Pipeline, Reference
from personalive.pipelines.parameters import build
from personalive.serving.answers import BusyError, NotFoundError
from personalive.serving.live.memory import trim
from personalive.serving.live.stream import Stream
from personalive.serving.live.worker import Worker
from personalive.serving.observing import logs
from personalive.serving.observing.metrics import Metrics

_RETRY_AFTER_S = 10
_TRIM_AFTER_S = 2.0
"""After the last session: its connection, with the codecs, is closed after it."""


class UnknownSessionError(NotFoundError):
    """An id that no live session has, or has any more."""

    def __init__(self) -> None:
        super().__init__("There is no such session; it may have ended.")


class Streams:
    """Use it on the event loop only."""

    def __init__(
        self, worker: Worker, metrics: Metrics, *, limit: int, watermark: bool = False, mark: str = ""
    ) -> None:
        """`limit` is how many there may be; every id begins with `mark`."""
        self.limit = limit
        self._mark = mark
        self._converter = ThreadPoolExecutor(1, "converter")
        self._worker = worker
        self._metrics = metrics
        self._watermark = watermark
        self._live: dict[str, Stream] = {}
        self._opening = 0

    def __len__(self) -> int:
        return len(self._live) + self._opening

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

    async def open(
        self,
        pipeline: Pipeline[Any, Any],
        reference_id: str,
        reference: Reference,
        parameters: Mapping[str, object],
    ) -> Stream:
        """A new session on that reference; `parameters` are run parameters by name.

        Raises `BusyError` when all slots are taken, `InputError` for parameters that cannot be.
        """
        checked = build(pipeline.run_parameters, parameters)
        if len(self) >= self.limit:
            many = "session streams" if self.limit == 1 else "sessions stream"
            raise BusyError(
                f"All slots are taken: {self.limit} {many} already. Try again later.",
                retry_after=_RETRY_AFTER_S,
            )
        self._opening += 1
        try:
            session = await self._worker.call(pipeline.open_session, reference, checked)
            stream = Stream(
                self._mark + secrets.token_urlsafe(12),
                session,
                pipeline.info,
                reference_id,
                worker=self._worker,
                converter=self._converter,
                metrics=self._metrics,
                watermark=self._watermark,
            )
            stream.on_end.append(self._forget)
            self._live[stream.id] = stream
        finally:
            self._opening -= 1
        self._metrics.session_opened()
        logs.event("session_opened", session=stream.id, pipeline=pipeline.info.id, reference=reference_id)
        return stream

    async def end_all(self, message: str, reason: str = "server") -> None:
        """End every session; their clients are told `message`."""
        await asyncio.gather(*(stream.end(reason, message) for stream in self.all()))

    def close(self) -> None:
        """Give the thread back that converts their frames. End them all first."""
        self._converter.shutdown(wait=False, cancel_futures=True)

    async def _forget(self, stream: Stream) -> None:
        self._live.pop(stream.id, None)
        if not self._live:
            asyncio.get_running_loop().call_later(_TRIM_AFTER_S, self._trim)

    def _trim(self) -> None:
        if not len(self):
            with contextlib.suppress(RuntimeError):  # the server has stopped meanwhile
                self._converter.submit(trim)
