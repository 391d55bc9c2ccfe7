"""Send Python objects between two processes, with arrays beside the pickle so that pixels are not copied.

A message is a header (the count and the sizes of its parts), the pickle, then the buffers that pickle protocol 5
(PEP 574) left out of it.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import struct
import threading
from typing import Any, Protocol

_LENGTH_STRUCT = struct.Struct("<I")
_SOCKET_BUFFER_BYTES = 2**22
"""The requested buffer size; systems grant less. A larger buffer needs fewer process switches per frame."""


class ByteStream(Protocol):
    """A stream that carries messages, such as the file of a pipe."""

    def readinto(self, buffer: bytearray, /) -> int | None:
        """Fill the buffer; return how many bytes there were before the end."""

    def write(self, data: memoryview | bytes, /) -> int | None:
        """Write all of it, or keep it until `flush`."""

    def flush(self) -> None:
        """Write the data that was kept."""

    def close(self) -> None:
        """Close the stream; a reader then sees its end."""


class SocketStream:
    """A connected socket as a stream.

    A whole frame takes one system call, so the interpreter lock is released and taken once; in a busy server each
    acquisition may wait for milliseconds. A pipe transfers a frame in dozens of pieces.
    """

    def __init__(self, sock: socket.socket, *, send_timeout: int = 0) -> None:
        """With `send_timeout`, in seconds, `write` raises `OSError` if the other end reads nothing in that time."""
        self._socket = sock
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):  # more than this system grants
                sock.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
        if send_timeout:
            seconds = struct.pack("ll", send_timeout, 0)  # of C: struct timeval
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)

    def readinto(self, buffer: bytearray, /) -> int:
        """Fill the buffer; return how many bytes there were before the end."""
        view, done = memoryview(buffer), 0
        while done < len(view):
            # Data may still arrive in parts, since a signal ends a call early.
            count = self._socket.recv_into(view[done:], 0, socket.MSG_WAITALL)
            if not count:
                break
            done += count
        return done

    def write(self, data: memoryview | bytes, /) -> int:
        """Write all of it."""
        self._socket.sendall(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: nothing is kept."""

    def close(self) -> None:
        """Close the socket; a thread that reads sees the end."""
        with contextlib.suppress(OSError):  # the other end is gone
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class MessagePipe:
    """A pipe for objects. One thread receives; any thread may send.

    Both ends must trust each other, since unpickling can run any code.
    """

    def __init__(self, incoming: ByteStream, outgoing: ByteStream) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._send_lock = threading.Lock()

    def send(self, message: object) -> None:
        """Send an object. Raises `OSError` or `ValueError` if the other end is gone."""
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        parts = [memoryview(body), *(buffer.raw() for buffer in buffers)]
        sizes = struct.pack(f"<{len(parts)}Q", *(part.nbytes for part in parts))
        with self._send_lock:
            self._outgoing.write(_LENGTH_STRUCT.pack(len(parts)) + sizes)
            for part in parts:
                self._outgoing.write(part)
            self._outgoing.flush()

    def receive(self) -> Any:
        """Wait for the next object. Raises `EOFError` if the other end is gone."""
        (count,) = _LENGTH_STRUCT.unpack(self._read(_LENGTH_STRUCT.size))
        sizes = struct.unpack(f"<{count}Q", self._read(8 * count))
        body, *buffers = (self._read(size) for size in sizes)
        return pickle.loads(body, buffers=buffers)

    def close(self) -> None:
        """Close both streams, so that the other end's `receive` raises. May be called twice."""
        for stream in (self._outgoing, self._incoming):
            with contextlib.suppress(OSError, ValueError):  # what was not flushed has nobody to read it
                stream.close()

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        try:
            read = self._incoming.readinto(data) if size else 0
        except (OSError, ValueError) as error:
            raise EOFError("the pipe is closed") from error
        if read != size:
            raise EOFError("the other end is gone")
        return data
