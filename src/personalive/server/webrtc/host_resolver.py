"""Looking up names beside the event loop's own threads, which would all be waiting where no name server answers."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time

_CACHE_TTL_S = 60.0


class HostResolver:
    """Finds hosts' IPv4 addresses, each in a thread of its own, of which there is one at a time for each host."""

    def __init__(self) -> None:
        self._cache: dict[str, tuple[str, float]] = {}
        self._running: dict[str, asyncio.Future[str]] = {}

    async def resolve(self, host: str, timeout: float) -> str | None:
        """An IPv4 address of the host; None where there is none, or it takes longer than `timeout` seconds.

        A lookup that takes longer goes on, and its outcome serves the next one who asks.
        """
        with contextlib.suppress(ValueError):
            return str(ipaddress.IPv4Address(host))
        address, until = self._cache.get(host, ("", 0.0))
        if time.monotonic() < until:
            return address
        running = self._running.get(host) or self._start_lookup(host)
        try:
            return await asyncio.wait_for(asyncio.shield(running), timeout)
        except (OSError, TimeoutError):
            return None

    def _start_lookup(self, host: str) -> asyncio.Future[str]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str] = loop.create_future()
        self._running[host] = done

        def settle(address: str | None, error: Exception | None) -> None:
            self._running.pop(host, None)
            if address is None:
                done.set_exception(error or OSError(f"{host} has no address"))
                done.exception()  # nobody may be waiting any more
            else:
                self._cache[host] = (address, time.monotonic() + _CACHE_TTL_S)
                done.set_result(address)

        def look() -> None:
            address, error = None, None
            try:
                address = socket.gethostbyname(host)
            except (OSError, UnicodeError) as caught:
                error = OSError(str(caught))
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(settle, address, error)

        # A daemon, since a process that ends waits for other threads, and this one may take minutes.
        threading.Thread(target=look, name="lookup", daemon=True).start()
        return done
