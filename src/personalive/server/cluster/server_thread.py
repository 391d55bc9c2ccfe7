"""A server on a separate thread, whose event loop takes UDP ports from a range, which Ray's loop does not."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import uvicorn

from personalive.server.app import ServerLifecycle, create_app
from personalive.server.run import bind_socket, make_http_config
from personalive.server.server import Server
from personalive.server.sessions.session import ServerSession
from personalive.server.settings import Settings
from personalive.server.webrtc.port_range_loop import make_loop_factory

T = TypeVar("T")

_START_TIMEOUT_S = 60.0
_POLL_S = 0.25


class ServerThread:
    """A server and its thread: start it, and stop it at the end. Any thread may call the methods."""

    def __init__(self, settings: Settings, make_server: Callable[[Settings], Server]) -> None:
        """`make_server` is called on the thread's event loop. `settings.host` is used, and a free port."""
        self._settings = settings
        self._app = create_app(settings, make_server)
        self._started_loop: Future[asyncio.AbstractEventLoop] = Future()
        self._http_server: uvicorn.Server | None = None
        self._listener: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the server, and return when it answers. Raises the error that kept it from starting."""
        self._listener = bind_socket(self._settings.host, 0)
        self._thread.start()
        self._started_loop.result(_START_TIMEOUT_S)

    @property
    def port(self) -> int:
        """The TCP port of the server."""
        assert self._listener is not None
        return int(self._listener.getsockname()[1])

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def server(self) -> Server:
        """The server. Use it on its event loop only: see `submit`."""
        server: Server = self._app.state.server
        return server

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the server's event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._started_loop.result(0))

    async def wait_ended(self, session_id: str) -> None:
        """Wait until that session has ended, if there is one. Call it on the server's event loop."""
        session = self.server.sessions.get(session_id)
        if session is None:
            return
        done = asyncio.Event()

        async def tell(session: ServerSession) -> None:
            del session
            done.set()

        session.on_end.append(tell)
        await done.wait()

    async def wait_empty(self) -> None:
        """Wait until no session is open. Call it on the server's event loop."""
        while len(self.server.sessions):
            await asyncio.sleep(_POLL_S)

    async def drain(self) -> None:
        """Take no more offers, notify the clients and end all sessions. Call it on the server's event loop."""
        self.server.draining = True
        await self.server.sessions.end_all("The server is stopping.", "shutdown")

    def stop(self, timeout: float) -> None:
        """Stop the server and its sessions, or give up after `timeout` seconds."""
        if self._http_server is not None and self.is_alive:
            self._http_server.should_exit = True
            self._thread.join(timeout)
        if self._listener is not None:
            self._listener.close()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=make_loop_factory(self._settings.udp_port_range)) as runner:
                runner.run(self._serve())
        except BaseException as error:
            if self._started_loop.done():
                raise
            self._started_loop.set_exception(error)

    async def _serve(self) -> None:
        assert self._listener is not None
        self._http_server = uvicorn.Server(make_http_config(self._app))
        serving = asyncio.create_task(self._http_server.serve([self._listener]), name="engine-http")
        while not (self._http_server.started or serving.done()):
            await asyncio.sleep(0.01)
        if not serving.done():
            self._started_loop.set_result(asyncio.get_running_loop())
        await serving
        if not self._started_loop.done():
            self._started_loop.set_exception(RuntimeError("the replica's server did not start; see its log"))
        lifetime: ServerLifecycle = self._app.state.lifetime
        await lifetime.stop()
