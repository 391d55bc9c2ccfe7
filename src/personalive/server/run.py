"""The server's process: its socket, its event loop, and the signals that end it."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any
from weakref import WeakSet

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from personalive.errors import InputError
from personalive.server.app import ServerLifecycle, create_app
from personalive.server.connection_limit import ConnectionLimiter, ConnectionLimitMiddleware
from personalive.server.http_connection import HttpConnection, TaskQueue
from personalive.server.open_files import raise_open_file_limit
from personalive.server.sessions.memory import freeze_gc
from personalive.server.settings import Settings
from personalive.server.state import startup
from personalive.server.telemetry import logs
from personalive.server.webrtc import port_range_loop
from personalive.server.websocket_protocol import (
    MAX_MESSAGE_BYTES,
    PING_INTERVAL_S,
    PING_TIMEOUT_S,
    WebSocketProtocol,
)

_SHUTDOWN_TIMEOUT_S = 1
_MAX_CONNECTIONS = 512
_BACKLOG = 128
"""The length of the accept queue, and the number of connections that are accepted at once."""


def run_server(settings: Settings, on_start: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP. `on_start` is called with the URL once the socket is bound.

    Raises:
        InputError: The address cannot be bound, or the settings' pipeline or portrait cannot be used.
        PipelineUnavailableError: The pipeline cannot run here.
    """
    startup.check_settings(settings)
    with bind_socket(settings.host, settings.port) as listener:
        logs.configure_logging(settings.log_format, settings.log_level)
        address = local_url(settings.host, listener.getsockname()[1])
        if on_start is not None:
            on_start(address)
        app = create_app(settings)
        crowd = ConnectionLimiter(_max_connections(), settings.max_connections)
        config = make_http_config(ConnectionLimitMiddleware(app, crowd), crowd, settings.header_timeout_s)
        freeze_gc()
        logs.event("server_started", url=address)
        with asyncio.Runner(
            loop_factory=port_range_loop.make_loop_factory(settings.udp_port_range)
        ) as runner:
            runner.run(_HttpServer(config, app).serve([listener]))


def make_http_config(
    app: ASGIApp, limiter: ConnectionLimiter | None = None, header_timeout_s: float = 10.0
) -> uvicorn.Config:
    """Return uvicorn's configuration for an application, with this package's logs and connections.

    `limiter` counts the connections and limits them; `header_timeout_s`: seconds for a request's headers.
    """
    task_queue = TaskQueue()
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws=partial(WebSocketProtocol, limiter=limiter, task_queue=task_queue),  # type: ignore[arg-type]
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_ping_interval=PING_INTERVAL_S,
        ws_ping_timeout=PING_TIMEOUT_S,
        ws_per_message_deflate=False,
        http=partial(
            HttpConnection, limiter=limiter, task_queue=task_queue, header_timeout_s=header_timeout_s
        ),  # type: ignore[arg-type]
        lifespan="on",
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
    )


def _max_connections() -> int:
    """Return the limit of HTTP connections, which leaves as many open files for media and everything else."""
    most = min(_MAX_CONNECTIONS, raise_open_file_limit(4 * _MAX_CONNECTIONS) // 2)
    # A few more are accepted before others are closed.
    return (
        most
        if port_range_loop.MAX_SOCKETS_PER_KIND is None
        else min(most, port_range_loop.MAX_SOCKETS_PER_KIND - 8)
    )


class _HttpServer(uvicorn.Server):
    """An HTTP server that stops in order at a signal: first sessions, while HTTP reports "not ready", then HTTP.

    Uvicorn stops in the opposite order, and raises the signal again when it is done.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_task: asyncio.Task[None] | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal ends it: also SIGHUP (a closed terminal), unless it is ignored, as with `nohup`."""
        self._loop = asyncio.get_running_loop()
        if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self.handle_exit)
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop at the first signal; exit at once at the second."""
        del frame
        if self._loop is None or not self.started or self._stop_task is not None:
            self.should_exit = True
            self.force_exit = self._stop_task is not None
            return
        self._loop.call_soon_threadsafe(self._begin_shutdown, signal.Signals(sig).name)

    def _begin_shutdown(self, signal_name: str) -> None:
        if self._stop_task is None:
            logs.event("server_stopping", signal=signal_name)
            self._stop_task = asyncio.get_running_loop().create_task(self._shut_down(), name="wind-up")

    async def _shut_down(self) -> None:
        lifetime: ServerLifecycle = self._app.state.lifetime
        try:
            await lifetime.stop()
        finally:
            self.should_exit = True


class LimitedSocket(socket.socket):
    """A listening socket that closes connections beyond `MAX_SOCKETS_PER_KIND`."""

    def __init__(self, family: int, kind: int) -> None:
        super().__init__(family, kind)
        self._accepted: WeakSet[socket.socket] = WeakSet()

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept like any socket. Raises `ConnectionAbortedError` for a connection beyond the limit."""
        connected, address = super().accept()
        if port_range_loop.MAX_SOCKETS_PER_KIND is not None:
            if sum(other.fileno() != -1 for other in self._accepted) >= port_range_loop.MAX_SOCKETS_PER_KIND:
                connected.close()
                raise ConnectionAbortedError
            self._accepted.add(connected)
        return connected, address


def bind_socket(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket. Raises `InputError` for a taken or reserved port, or an invalid address."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = LimitedSocket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise InputError(f"{host} is no address to listen at: {error.strerror or error}.") from None
    try:
        if sys.platform != "win32":
            # A restarted server need not wait until its old connections time out.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise InputError(_explain_bind_error(error, host, port)) from None
    return listener


def _explain_bind_error(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is taken: stop what listens there, or take another with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} is reserved for the administrator: take one above 1023 with --port."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine: use 127.0.0.1, or 0.0.0.0 for all that it has."
    return f"{host} port {port} cannot be listened at: {error.strerror or error}."


def local_url(host: str, port: int) -> str:
    """Return the URL of a server that listens at `host`, for a browser on this machine."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{name}:{port}"
