"""A client's HTTP connection, which cannot keep the server waiting, nor busy.

Uvicorn waits without an end for a request's headers and for a client that does not read its answer, and takes a
chunked body in one go, however many chunks of it are there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from personalive.server.connection_limit import Crowd

_LINGER_S = 2.0
"""Seconds for a connection that is closed to send what is left, and to take what is on its way."""
_READ_S = 30.0
"""Seconds for a client to read on."""
_HEAD_PIECE = 4096
_CHUNKED_PIECE = 512
"""Bytes that are looked at in one go: a chunk may have six of them, and takes some 20 µs."""
_CHUNKED_BEGIN = 8192
"""Bytes of a chunked body after which at least half of all must have been content."""
_MOST_HEADERS = 128


class Turns:
    """Pieces of work of all connections, one in each turn of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, work: Callable[[], None]) -> None:
        """Do it when its turn comes."""
        self._waiting.append(work)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        try:
            self._waiting[0]()
        finally:
            self._waiting.popleft()
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._next)


class HttpConnection(H11Protocol):
    """One connection; made by the server for each."""

    def __init__(self, *args: Any, crowd: Crowd | None, turns: Turns, header_s: float, **kwargs: Any) -> None:
        """`crowd` counts it, and may close it; `turns` are shared; `header_s`: seconds for a request's headers."""
        super().__init__(*args, **kwargs)
        self._turns = turns
        self._crowd = crowd
        self._header_s = header_s
        self._deadline: asyncio.TimerHandle | None = None
        self._reading_deadline: asyncio.TimerHandle | None = None
        self._later = bytearray()
        self._has_begun = False
        self._line_ends = 0
        self._is_chunked = False
        self._chunked_bytes = 0
        self._chunked_content = 0
        self._is_refused = False

    # -- what the crowd asks

    @property
    def idles(self) -> bool:
        """Whether none of a request's headers, or only a part of them, are there."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def waits(self) -> bool:
        """Whether no answer is being made for it: it is idle, or its request is still coming."""
        return self.idles or self.cycle.more_body

    def dismiss(self) -> None:
        """Close it at once."""
        self.transport.abort()

    # -- what the event loop tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._expect_headers()
        if self._crowd is not None:
            self._crowd.enter(self, self._host)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        super().connection_lost(exc)
        self._cancel()
        self.resume_writing()
        self._later.clear()
        if self._crowd is not None:
            self._crowd.leave(self, self._host)

    def data_received(self, data: bytes) -> None:
        """Take some of it now, and the rest when others have had their turn."""
        if self._is_refused:
            return
        if self._later or self._is_chunked:
            self._take_in_turn(data)
        else:
            self._take(data)

    def pause_writing(self) -> None:
        """The client does not read, or not fast enough."""
        super().pause_writing()
        if self._reading_deadline is None:
            self._expect_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It reads again."""
        if self._reading_deadline is not None:
            self._reading_deadline.cancel()
            self._reading_deadline = None
        super().resume_writing()

    def _expect_reading(self, unread: int) -> None:
        """End the connection of a client that reads nothing of `unread` bytes for too long."""

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if left >= unread:
                self.transport.abort()
            else:
                self._expect_reading(left)

        self._reading_deadline = self.loop.call_later(_READ_S, look)

    # -- what uvicorn tells

    def on_response_complete(self) -> None:
        """An answer is out: the next request's headers may come, or the rest of a body that nobody wants."""
        before = self.cycle
        self._expect_headers()
        super().on_response_complete()
        if self.cycle is not before:  # the next request was here already
            self._begun()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._refuse(400, msg)

    def shutdown(self) -> None:
        """The server ends, when requests that are being answered have been."""
        if self._is_refused or self.conn.our_state is h11.ERROR:
            self.transport.abort()
        else:
            super().shutdown()

    # -- within

    @property
    def _host(self) -> str:
        return self.client[0] if self.client else ""

    @property
    def _is_in_body(self) -> bool:
        """Whether a body comes; one whose request has been answered is of no use any more."""
        return self.conn.their_state is h11.SEND_BODY

    def _take(self, data: bytes) -> None:
        """Give the beginning to HTTP's parser, and keep the rest for later."""
        before = self.cycle
        now, later = data[: self._piece()], data[self._piece() :]
        if self.idles and not self._is_in_body and not self._may_come(now):
            return
        self._has_begun = True
        had = 0 if before is None else len(before.body)
        super().data_received(now)
        if self.cycle is not before:
            self._begun()
        elif (
            self._is_chunked
            and self._is_in_body
            and not self._has_content(len(now), len(self.cycle.body) - had)
        ):
            return
        if later and not self.transport.is_closing():
            self._take_in_turn(later)

    def _take_in_turn(self, data: bytes) -> None:
        if not self._later:
            self._turns.add(self._take_later)
        self._later += data
        self.transport.pause_reading()

    def _take_later(self) -> None:
        data = bytes(self._later)
        self._later.clear()
        if self.transport.is_closing() or self._is_refused:
            return
        self._take(data)
        if not self._later and not self.flow.read_paused:
            self.transport.resume_reading()

    def _piece(self) -> int:
        """How many bytes to look at in one go."""
        if self.idles and not self._is_in_body:
            return _HEAD_PIECE
        # Of a body with a length, all that is there is one piece.
        return _CHUNKED_PIECE if self._is_chunked else 2**30

    def _has_content(self, count: int, content: int) -> bool:
        """Whether a chunked body may go on after `count` more bytes; if not, the client is told."""
        if self.idles:
            self._discard(self._header_s)
            return False
        self._chunked_bytes += count
        self._chunked_content += content
        if self._chunked_bytes > max(_CHUNKED_BEGIN, 2 * self._chunked_content):
            self._refuse(400, "The body comes in chunks that are too small.")
            return False
        return True

    def _may_come(self, data: bytes) -> bool:
        """Whether headers may go on; if not, the client is told."""
        self._line_ends += data.partition(b"\r\n\r\n")[0].count(b"\n")
        if self._line_ends > _MOST_HEADERS:
            self._refuse(431, f"A request may have {_MOST_HEADERS} headers.")
            return False
        return True

    def _begun(self) -> None:
        """A request's headers are there: how long its body may take is said elsewhere."""
        self._cancel()
        self._has_begun = False
        self._line_ends = 0
        self._is_chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        self._chunked_bytes = self._chunked_content = 0

    def _expect_headers(self) -> None:
        self._cancel()
        self._has_begun = False
        self._line_ends = 0
        self._is_chunked = self._is_chunked and self._is_in_body
        self._deadline = self.loop.call_later(self._header_s, self._expired)

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expired(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            self.transport.abort()
            return
        if self._has_begun:
            self._refuse(408, f"The request's headers did not come within {self._header_s:g} s.")
        else:
            self._close()

    def _refuse(self, status: int, reason: str) -> None:
        """Answer in the form of all errors, without the application, and close."""
        body = f'{{"detail":"{reason}"}}'.encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        # Where an answer is out already, there is nothing to be said.
        with contextlib.suppress(h11.LocalProtocolError):
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self._discard(_LINGER_S)

    def _discard(self, seconds: float) -> None:
        """Take what still comes for so long, unread: closed at once, it would take an answer with it."""
        self._is_refused = True
        self._later.clear()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self._cancel()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _close(self) -> None:
        self.transport.close()
        self._cancel()
        self._deadline = self.loop.call_later(_LINGER_S, self.transport.abort)
