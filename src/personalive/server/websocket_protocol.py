"""A WebSocket's connection with limits, so that a client can neither block the server nor keep it busy.

Uvicorn parses all that has arrived at once, takes any number of fragments, and waits for ever for a client that
does not read.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from personalive.server.connection_limit import ConnectionLimiter
from personalive.server.http_connection import TaskQueue

MAX_MESSAGE_BYTES = 1_048_576
"""The limit of a message; the largest keyframe of a camera is much smaller."""
PING_INTERVAL_S, PING_TIMEOUT_S = 5.0, 15.0
_PIECE_BYTES = 1024
"""Bytes that are parsed at once: a frame may be as short as six bytes, and takes some 20 µs."""
_MAX_FRAGMENTS = 256
_WRITE_BUFFER_BYTES = 32 * 1024
_UNREAD_TIMEOUT_S = 15.0
"""Seconds after which a client that reads nothing, or does not answer a closing frame, is disconnected."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket, made by the HTTP server when a client asks for the upgrade."""

    def __init__(
        self, *args: Any, limiter: ConnectionLimiter | None, task_queue: TaskQueue, **kwargs: Any
    ) -> None:
        """`limiter` counts the connection and may close it; all connections share `task_queue`."""
        super().__init__(*args, **kwargs)
        self._limiter = limiter
        self._task_queue = task_queue
        self._unparsed = bytearray()
        self._fragments = 0
        self._write_timer: asyncio.TimerHandle | None = None

    # -- what the connection limiter calls

    is_waiting = is_idle = False
    """A WebSocket has a session, or is refused at once."""

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register a client that has connected."""
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        if self._limiter is not None:
            self._limiter.add(self, self._client_host)

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after the connection was lost."""
        super().connection_lost(exc)
        self._unparsed.clear()
        self._stop_write_timer()
        if self._limiter is not None:
            self._limiter.remove(self, self._client_host)

    def data_received(self, data: bytes) -> None:
        """Parse a part of the data now, and the rest after other connections had their turn."""
        is_scheduled = bool(self._unparsed)
        self._unparsed += data
        if not is_scheduled:
            self._parse_piece()
        else:
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        """Stop writing, since the client does not read fast enough."""
        super().pause_writing()
        if self._write_timer is None:
            self._start_write_timer(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Continue to write, since the client reads again."""
        self._stop_write_timer()
        super().resume_writing()

    # -- what uvicorn calls

    async def receive(self) -> Any:
        """Return the next message of the client."""
        message = await super().receive()
        if self._unparsed:  # which reading goes on after
            self.transport.pause_reading()
        return message

    async def send(self, message: Any) -> None:
        """Send a message. A client that does not close its side is disconnected."""
        await super().send(message)
        if message["type"] == "websocket.close":
            self.loop.call_later(_UNREAD_TIMEOUT_S, self.transport.abort)

    def handle_text(self, event: Frame) -> None:
        """Take a message, or its first fragment."""
        self._fragments = 0
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """Take a message, or its first fragment."""
        self._fragments = 0
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        """Take a further fragment of a message."""
        super().handle_cont(event)
        self._fragments += 1
        if self._fragments > _MAX_FRAGMENTS and not self.close_sent:
            self.conn.fail(1008, f"A message may have {_MAX_FRAGMENTS} fragments.")
            self.handle_parser_exception()

    # -- internals

    @property
    def _client_host(self) -> str:
        return self.client[0] if self.client else ""

    def _parse_piece(self) -> None:
        if self.transport.is_closing() and not self.close_sent:
            self._unparsed.clear()
        if not self._unparsed:
            return
        piece = bytes(self._unparsed[:_PIECE_BYTES])
        del self._unparsed[:_PIECE_BYTES]
        super().data_received(piece)
        if self._unparsed:
            self.transport.pause_reading()
            self._task_queue.schedule(self._parse_piece)
        elif not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _start_write_timer(self, unread: int) -> None:
        def look() -> None:
            left = self.transport.get_write_buffer_size()
            if left >= unread:
                self.transport.abort()
            else:
                self._start_write_timer(left)

        self._write_timer = self.loop.call_later(_UNREAD_TIMEOUT_S, look)

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
