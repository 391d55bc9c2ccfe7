"""An HTTP connection with limits, so that a client can neither block the server nor keep it busy.

Uvicorn waits for ever for a request's headers and for a client that does not read its answer, and parses a chunked
body at once, however many of its chunks have arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from personalive.server.connection_limit import ConnectionLimiter

_LINGER_TIMEOUT_S = 2.0
"""Seconds that a closing connection has to send the remaining data and to receive data in flight."""
_WRITE_TIMEOUT_S = 30.0
"""Seconds after which a client that reads nothing is disconnected."""
_HEAD_PIECE_BYTES = 4096
_CHUNKED_PIECE_BYTES = 512
"""Bytes that are parsed at once: a chunk may be as short as six bytes, and takes some 20 µs."""
_CHUNKED_ALLOWANCE_BYTES = 8192
"""Bytes of a chunked body after which at least half of all bytes must be content."""
_MAX_HEADERS = 128


class TaskQueue:
    """A queue of tasks of all connections, of which one runs in each iteration of the event loop."""

    def __init__(self) -> None:
        self._pending: deque[Callable[[], None]] = deque()

    def schedule(self, work: Callable[[], None]) -> None:
        """Run the task when its turn comes."""
        self._pending.append(work)
        if len(self._pending) == 1:
            asyncio.get_running_loop().call_soon(self._run_next)

    def _run_next(self) -> None:
        try:
            self._pending[0]()
        finally:
            self._pending.popleft()
            if self._pending:
                asyncio.get_running_loop().call_soon(self._run_next)


class HttpConnection(H11Protocol):
    """One connection, made by the HTTP server."""

    def __init__(
        self,
        *args: Any,
        limiter: ConnectionLimiter | None,
        task_queue: TaskQueue,
        header_timeout_s: float,
        **kwargs: Any,
    ) -> None:
        """`limiter` counts the connection and may close it; all connections share `task_queue`.

        `header_timeout_s` is the limit for a request's headers, in seconds.
        """
        super().__init__(*args, **kwargs)
        self._task_queue = task_queue
        self._limiter = limiter
        self._header_timeout_s = header_timeout_s
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._pending = bytearray()
        self._head_complete = False
        self._line_ends = 0
        self._is_chunked = False
        self._chunked_bytes = 0
        self._chunked_content = 0
        self._is_rejected = False
        self._is_upgraded = False

    # -- what the connection limiter calls

    @property
    def is_idle(self) -> bool:
        """Whether no request's headers, or only a part of them, have arrived."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_waiting(self) -> bool:
        """Whether no answer is being made for it: it is idle, or its request is still arriving."""
        return self.is_idle or self.cycle.more_body

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Register a client that has connected."""
        super().connection_made(transport)
        self._start_header_timeout()
        if self._limiter is not None:
            self._limiter.add(self, self._client_host)

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the connection was lost."""
        super().connection_lost(exc)
        self._cancel_timeout()
        self.resume_writing()
        self._pending.clear()
        if self._limiter is not None:
            self._limiter.remove(self, self._client_host)

    def data_received(self, data: bytes) -> None:
        """Parse a part of the data now, and the rest after other connections had their turn."""
        if self._is_rejected:
            return
        if self._pending or self._is_chunked:
            self._schedule_feed(data)
        else:
            self._feed(data)

    def pause_writing(self) -> None:
        """Stop writing, since the client does not read fast enough."""
        super().pause_writing()
        if self._write_timer is None:
            self._start_write_timeout(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Continue to write, since the client reads again."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def _start_write_timeout(self, unread: int) -> None:
        """Close the connection of a client that reads none of `unread` bytes for too long."""

        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if left >= unread:
                self.transport.abort()
            else:
                self._start_write_timeout(left)

        self._write_timer = self.loop.call_later(_WRITE_TIMEOUT_S, look)

    # -- what uvicorn calls

    def on_response_complete(self) -> None:
        """Wait for the next request's headers, or discard the rest of a body, after an answer was sent."""
        before = self.cycle
        self._start_header_timeout()
        super().on_response_complete()
        if self.cycle is not before:  # the next request had already arrived
            self._on_head_complete()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Let another protocol continue on this connection; it counts it too."""
        self._is_upgraded = True
        self._cancel_timeout()
        if self._limiter is not None:
            self._limiter.remove(self, self._client_host)
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Reject data that is not HTTP."""
        self._reject(400, msg)

    def shutdown(self) -> None:
        """Close the connection once the requests in progress are answered."""
        if self._is_rejected or self.conn.our_state is h11.ERROR:
            self.transport.abort()
        else:
            super().shutdown()

    # -- internals

    @property
    def _client_host(self) -> str:
        return self.client[0] if self.client else ""

    @property
    def _is_in_body(self) -> bool:
        """Whether a request's body is arriving. Once the request is answered, the rest of the body is useless."""
        return self.conn.their_state is h11.SEND_BODY

    def _feed(self, data: bytes) -> None:
        """Pass the beginning to the HTTP parser, and keep the rest for later."""
        before = self.cycle
        now, later = data[: self._piece_size()], data[self._piece_size() :]
        if self.is_idle and not self._is_in_body and not self._check_head(now):
            return
        self._head_complete = True
        had = 0 if before is None else len(before.body)
        super().data_received(now)
        if self._is_upgraded:
            return  # what a client sends before there was an answer is no WebSocket's
        if self.cycle is not before:
            self._on_head_complete()
        elif (
            self._is_chunked
            and self._is_in_body
            and not self._check_chunked_content(len(now), len(self.cycle.body) - had)
        ):
            return
        if later and not self.transport.is_closing():
            self._schedule_feed(later)

    def _schedule_feed(self, data: bytes) -> None:
        if not self._pending:
            self._task_queue.schedule(self._feed_pending)
        self._pending += data
        self.transport.pause_reading()

    def _feed_pending(self) -> None:
        data = bytes(self._pending)
        self._pending.clear()
        if self.transport.is_closing() or self._is_rejected:
            return
        self._feed(data)
        if not self._pending and not self.flow.read_paused:
            self.transport.resume_reading()

    def _piece_size(self) -> int:
        """Return the number of bytes to parse at once."""
        if self.is_idle and not self._is_in_body:
            return _HEAD_PIECE_BYTES
        # A body with a length is passed on in one piece.
        return _CHUNKED_PIECE_BYTES if self._is_chunked else 2**30

    def _check_chunked_content(self, count: int, content: int) -> bool:
        """Return whether a chunked body may continue after `count` more bytes; if not, answer with an error."""
        if self.is_idle:
            self._discard(self._header_timeout_s)
            return False
        self._chunked_bytes += count
        self._chunked_content += content
        if self._chunked_bytes > max(_CHUNKED_ALLOWANCE_BYTES, 2 * self._chunked_content):
            self._reject(400, "The body comes in chunks that are too small.")
            return False
        return True

    def _check_head(self, data: bytes) -> bool:
        """Return whether headers may continue; if not, answer with an error."""
        self._line_ends += data.partition(b"\r\n\r\n")[0].count(b"\n")
        if self._line_ends > _MAX_HEADERS:
            self._reject(431, f"A request may have {_MAX_HEADERS} headers.")
            return False
        return True

    def _on_head_complete(self) -> None:
        """Stop the header timeout, as the headers are complete; `BodyLimitMiddleware` limits the body's time."""
        self._cancel_timeout()
        self._head_complete = False
        self._line_ends = 0
        self._is_chunked = any(name == b"transfer-encoding" for name, _ in self.headers)
        self._chunked_bytes = self._chunked_content = 0

    def _start_header_timeout(self) -> None:
        self._cancel_timeout()
        self._head_complete = False
        self._line_ends = 0
        self._is_chunked = self._is_chunked and self._is_in_body
        self._header_timer = self.loop.call_later(self._header_timeout_s, self._on_header_timeout)

    def _cancel_timeout(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _on_header_timeout(self) -> None:
        self._header_timer = None
        if self.transport.is_closing():
            self.transport.abort()
            return
        if self._head_complete:
            self._reject(408, f"The request's headers did not come within {self._header_timeout_s:g} s.")
        else:
            self._close_transport()

    def _reject(self, status: int, reason: str) -> None:
        """Answer with an error in the usual form, without the application, and close the connection."""
        body = f'{{"detail":"{reason}"}}'.encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        # If an answer was already sent, no other can follow.
        with contextlib.suppress(h11.LocalProtocolError):
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self._discard(_LINGER_TIMEOUT_S)

    def _discard(self, seconds: float) -> None:
        """Discard arriving data for a while: closing at once could lose the answer that was just sent."""
        self._is_rejected = True
        self._pending.clear()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self._cancel_timeout()
        self._header_timer = self.loop.call_later(seconds, self.transport.abort)

    def _close_transport(self) -> None:
        self.transport.close()
        self._cancel_timeout()
        self._header_timer = self.loop.call_later(_LINGER_TIMEOUT_S, self.transport.abort)
