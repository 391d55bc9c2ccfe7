"""A TCP proxy that is as slow as a long line: every byte waits for its turn and for the length of the way.

It stands for a network namespace with `tc qdisc … netem`, which not every kernel has, and for the proxies of rented
machines, since it buffers as they do: what does not fit the line waits in it, and in the system's own buffers.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

_PACKET_BYTES = 1400
_BUFFER_PACKETS = 180


class _Direction:
    """One direction of the line, which all connections share."""

    def __init__(self, bits_per_second: float, delay_s: float) -> None:
        self._rate, self._delay_s = bits_per_second, delay_s
        self._free_at = 0.0

    def schedule(self, size: int, now: float) -> float:
        """Return the time at which bytes that are given to it now have arrived."""
        self._free_at = max(now, self._free_at) + 8 * size / self._rate
        return self._free_at + self._delay_s


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: _Direction) -> None:
    clock = asyncio.get_running_loop().time
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_BUFFER_PACKETS)

    async def deliver() -> None:
        while True:
            at, packet = await under_way.get()
            await asyncio.sleep(at - clock())
            if not packet:
                writer.close()
                return
            writer.write(packet)
            await writer.drain()

    delivering = asyncio.create_task(deliver())
    with contextlib.suppress(ConnectionError):
        while packet := await reader.read(_PACKET_BYTES):
            await under_way.put((line.schedule(len(packet), clock()), packet))
    await under_way.put((clock(), b""))
    with contextlib.suppress(ConnectionError):
        await delivering


@contextlib.contextmanager
def shaped_link(port: int, bits_per_second: float, round_trip_s: float) -> Iterator[int]:
    """Yield the port of a proxy of that port of this machine; both directions have `bits_per_second`."""
    loop = asyncio.new_event_loop()  # another one may run in this thread
    up, down = (_Direction(bits_per_second, round_trip_s / 2) for _ in range(2))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_carry(reader, back, up), _carry(there, writer, down), return_exceptions=True)

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    started = asyncio.start_server(serve, "127.0.0.1", 0)
    server = asyncio.run_coroutine_threadsafe(started, loop).result(10)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.set_exception_handler(lambda _, context: None)  # connections are cut, which is no error here
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
