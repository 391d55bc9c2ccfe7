"""Look up host names in separate threads; if no name server answers, the event loop's own would all be blocked."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
import time

_CACHE_TTL_S = 60.0


class HostResolver:
    """A resolver of hosts' IPv4 addresses, with at most one thread at a time for each host."""

    def __init__(self) -> None:
        self._cache: dict[str, tuple[str, float]] = {}
        self._running: dict[str, asyncio.Future[str]] = {}

    async def resolve(self, host: str, timeout: float) -> str | None:
        """Return an IPv4 address of the host; None where there is none, or it takes longer than `timeout` seconds.

        A lookup that takes longer goes on, and later calls use its result.
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
                done.exception()  # marks the error as retrieved, since nobody may be waiting any more
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

        # It is a daemon thread, since a process waits for other threads before it ends, and this may take minutes.
        threading.Thread(target=look, name="lookup", daemon=True).start()
        return done
