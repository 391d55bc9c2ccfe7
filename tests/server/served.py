"""The server with its sockets, in a thread of this process, so that a test can look at its event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from personalive.server.app import create_app
from personalive.server.connection_limit import ConnectionLimiter, ConnectionLimitMiddleware
from personalive.server.run import bind_socket, make_http_config
from personalive.server.server import Server
from personalive.server.settings import Settings
from personalive.server.webrtc.port_range_loop import make_loop_factory
from tests.server.parts import encoded, loaded, portrait

T = TypeVar("T")

FINGERPRINT = ":".join(["AB"] * 32)
OFFER = f"""v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
a=setup:actpass
a=ice-ufrag:abcd
a=ice-pwd:abcdefghijklmnopqrstuvwx
a=fingerprint:sha-256 {FINGERPRINT}
m=video 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=mid:0
a=sendrecv
a=rtcp-mux
a=rtpmap:96 H264/90000
a=fmtp:96 profile-level-id=42e01f;packetization-mode=1
""".replace("\n", "\r\n")
"""What sends video, and takes it, by a client that is never heard of again."""


class Served:
    """Where it listens, its parts, and for how long its event loop was held at most."""

    def __init__(self, settings: Settings, most: int) -> None:
        self.crowd = ConnectionLimiter(most, settings.max_connections)
        self._settings = settings
        self._app = create_app(settings, lambda given: Server(given, in_process=True))
        self._up: Future[asyncio.AbstractEventLoop] = Future()
        self._listener = bind_socket("127.0.0.1", 0)
        config = make_http_config(
            ConnectionLimitMiddleware(self._app, self.crowd), self.crowd, settings.header_timeout_s
        )
        self._http = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._held = 0.0
        self._watching = False

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()
        return host, port

    @property
    def server(self) -> Server:
        server: Server = self._app.state.server
        return server

    def call(self, work: Coroutine[Any, Any, T], within: float = 60.0) -> T:
        """Run it on the server's event loop."""
        return self.begin(work).result(within)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run it there, without waiting for its end."""
        return asyncio.run_coroutine_threadsafe(work, self._up.result(30))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Measure, in `held`, the longest that the event loop was busy without a turn for others.

        In seconds of its thread's own time: what else the machine does makes no difference.
        """
        self._held, self._watching = 0.0, True
        watch = self.begin(self._watch())
        try:
            yield
        finally:
            self._watching = False
            watch.result(30)

    @property
    def held(self) -> float:
        return self._held

    async def _watch(self) -> None:
        before = time.thread_time()
        while self._watching:
            await asyncio.sleep(0)
            now = time.thread_time()
            self._held, before = max(self._held, now - before), now

    def __enter__(self) -> Served:
        self._thread.start()
        self._up.result(30)
        return self

    def __exit__(self, *raised: object) -> None:
        self._http.should_exit = True
        self._thread.join(30)
        self._listener.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=make_loop_factory(None)) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        serving = asyncio.create_task(self._http.serve([self._listener]))
        while not (self._http.started or serving.done()):
            await asyncio.sleep(0.01)
        self._up.set_result(asyncio.get_running_loop())
        await serving
        await self._app.state.lifetime.stop()


@contextlib.contextmanager
def served(recordings: Path, *, most: int = 64, load: bool = True, **settings: Any) -> Iterator[Served]:
    """A server that listens; with `load`, ready for sessions."""
    with Served(Settings(recordings_dir=recordings, **settings), most) as running:
        if load:
            running.call(_made_ready(running))
        yield running


async def _made_ready(running: Served) -> None:
    await loaded(running.server.pipelines)
    await running.server.references.add(encoded(portrait()))
    await running.server.references.get_fused()


def connected(address: tuple[str, int]) -> socket.socket:
    """A client's socket."""
    return socket.create_connection(address, timeout=30)


def answer_of(client: socket.socket) -> tuple[int, bytes]:
    """The status and the rest of an answer that ends with the connection, or when as much is there as it says."""
    said = b""
    while True:
        head, _, body = said.partition(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if length and len(body) >= int(length[0].partition(b":")[2]):
            break
        with contextlib.suppress(ConnectionError):
            if piece := client.recv(65_536):
                said += piece
                continue
        break
    return (int(said.split()[1]) if said else 0), said
