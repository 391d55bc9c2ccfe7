"""A whole server on a thread of its own: its event loop takes UDP ports from a range, which Ray's own does not."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import uvicorn

from personalive.server.app import Lifetime, create_app
from personalive.server.run import http_config, listen
from personalive.server.server import Server
from personalive.server.sessions.session import Stream
from personalive.server.settings import Settings
from personalive.server.webrtc.port_range_loop import loop_factory

T = TypeVar("T")

_START_S = 60.0
_LOOK_S = 0.25


class Engine:
    """Start it, and stop it in the end. Its methods may be called from any thread."""

    def __init__(self, settings: Settings, make: Callable[[Settings], Server]) -> None:
        """`make` is called on the engine's event loop. It listens at the settings' host, at a free port."""
        self._settings = settings
        self._app = create_app(settings, make)
        self._up: Future[asyncio.AbstractEventLoop] = Future()
        self._http: uvicorn.Server | None = None
        self._listener: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Returns when it answers. Raises what kept it from starting."""
        self._listener = listen(self._settings.host, 0)
        self._thread.start()
        self._up.result(_START_S)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._listener is not None
        return int(self._listener.getsockname()[1])

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    @property
    def server(self) -> Server:
        """Its parts: to be used on its event loop only, see `submit`."""
        server: Server = self._app.state.server
        return server

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run it on the engine's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._up.result(0))

    async def ended(self, session_id: str) -> None:
        """Returns when that session has ended; at once if there is none. On the engine's event loop."""
        stream = self.server.streams.get(session_id)
        if stream is None:
            return
        done = asyncio.Event()

        async def tell(stream: Stream) -> None:
            del stream
            done.set()

        stream.on_end.append(tell)
        await done.wait()

    async def empty(self) -> None:
        """Returns when no session streams. On the engine's event loop."""
        while len(self.server.streams):
            await asyncio.sleep(_LOOK_S)

    async def send_off(self) -> None:
        """Take no more offers, and end all sessions: their clients are told. On the engine's event loop."""
        self.server.draining = True
        await self.server.streams.end_all("The server is stopping.", "shutdown")

    def stop(self, within: float) -> None:
        """End its sessions and all else, or give up after so many seconds."""
        if self._http is not None and self.alive:
            self._http.should_exit = True
            self._thread.join(within)
        if self._listener is not None:
            self._listener.close()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory(self._settings.udp_port_range)) as runner:
                runner.run(self._serve())
        except BaseException as error:
            if self._up.done():
                raise
            self._up.set_exception(error)

    async def _serve(self) -> None:
        assert self._listener is not None
        self._http = uvicorn.Server(http_config(self._app))
        serving = asyncio.create_task(self._http.serve([self._listener]), name="engine-http")
        while not (self._http.started or serving.done()):
            await asyncio.sleep(0.01)
        if not serving.done():
            self._up.set_result(asyncio.get_running_loop())
        await serving
        if not self._up.done():
            self._up.set_exception(RuntimeError("the replica's server did not start; see its log"))
        lifetime: Lifetime = self._app.state.lifetime
        await lifetime.stop()
