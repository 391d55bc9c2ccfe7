"""Many clients in one process: their event loop runs on a thread, so that a test may do as it likes meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from tests.server.camera import Camera, Sizes
from tests.server.client import Client
from tests.server.report import Report

T = TypeVar("T")

FPS = 3
SMALLEST: Sizes = ((0.0, (256, 256)),)
_PATIENCE = 90.0


class Crowd:
    """Use it in a `with` block, which ends all sessions."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        self.clients: list[Client] = []
        self._url, self._key = url, key
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="crowd", daemon=True)

    def join(self, patience: float = 0.0, fps: float = FPS) -> Client:
        """One more client, once it has seen a frame. One that is refused for want of a slot tries again so long."""
        client = self._do(self._join(time.monotonic() + patience, fps))
        self.clients.append(client)
        return client

    def leave(self, clients: Sequence[Client]) -> None:
        """These end their sessions."""
        for client in clients:
            self._do(client.close())

    def wait(self, client: Client, frames: int) -> None:
        """Wait until it has seen that number of frames more."""
        self._do(client.frames(frames))

    def wait_until_gone(self, clients: Sequence[Client], within: float) -> None:
        """Until each knows that its session has ended."""
        until = time.monotonic() + within
        for client in clients:
            self._do(_gone(client, until - time.monotonic()))

    async def _join(self, until: float, fps: float) -> Client:
        while True:
            client = Client(self._url, Camera(fps, SMALLEST), key=self._key)
            try:
                await client.connect()
                await client.frames(1)
            except BaseException as error:
                await client.close()
                full = isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 503
                if not full or time.monotonic() > until:
                    raise
                await asyncio.sleep(0.5)
            else:
                return client

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.leave(self.clients)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _gone(client: Client, within: float) -> None:
    await client.until(lambda: client.report.ended is not None, "its end", within)


def owner(client: Client | str) -> str:
    """The replica of its session."""
    return str(client if isinstance(client, str) else client.id).partition(".")[0]


def longest_gap(report: Report, since: float, until: float) -> float:
    """Seconds for which no frame came, at most, between two times of this machine's clock."""
    seen = [frame.received for frame in report.within(since, until).seen]
    return max(later - earlier for earlier, later in itertools.pairwise([since, *seen, until]))
