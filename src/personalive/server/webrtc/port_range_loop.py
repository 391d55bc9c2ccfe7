"""The event loop: how many sockets it can watch, and UDP sockets within a range of ports, for firewalls.

The ICE library asks its loop for any port; there is no setting for it, so the loop is where the range is kept.
"""

from __future__ import annotations

import asyncio
import errno
import random
import sys
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakSet

P = TypeVar("P", bound=asyncio.BaseProtocol)


# On Windows too, where asyncio's own choice is the proactor. That one waits for any number of sockets, but closes
# the listening one when a client goes before it is accepted, and before Python 3.13 a datagram socket receives
# nothing more once it has sent to a port where nobody listens, as ICE does while it looks for a way. Neither the
# ICE nor the WebRTC library needs what only one of the two has, and no subprocess is started on the loop.
MAX_SOCKETS_PER_KIND = 248 if sys.platform == "win32" else None
"""The most UDP sockets, and the most HTTP connections. One call of `select` takes 512 sockets on Windows, some of
which are the loop's own, and one more would end the loop."""


class LimitedEventLoop(asyncio.SelectorEventLoop):
    """Refuses datagram sockets beyond `MAX_SOCKETS_PER_KIND`."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: WeakSet[asyncio.DatagramTransport] = WeakSet()

    async def create_datagram_endpoint(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], P],
        local_addr: tuple[str, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
        **options: Any,
    ) -> tuple[asyncio.DatagramTransport, P]:
        """As any loop's. Raises `OSError` where there would be too many."""
        used = sum(not transport.is_closing() for transport in self._opened)
        if MAX_SOCKETS_PER_KIND is not None and used >= MAX_SOCKETS_PER_KIND:
            raise OSError(errno.EMFILE, "too many UDP sockets are open")
        made = await super().create_datagram_endpoint(protocol_factory, local_addr, remote_addr, **options)
        self._opened.add(made[0])
        return made


class PortRangeEventLoop(LimitedEventLoop):
    """Where a datagram endpoint asks for any port of an address, it gets one of `ports`."""

    def __init__(self, ports: range) -> None:
        super().__init__()
        self._ports = ports

    async def create_datagram_endpoint(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], P],
        local_addr: tuple[str, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
        **options: Any,
    ) -> tuple[asyncio.DatagramTransport, P]:
        """As any loop's. Raises `OSError` when every port of the range is in use."""
        if local_addr is None or local_addr[1] != 0:
            return await super().create_datagram_endpoint(
                protocol_factory, local_addr, remote_addr, **options
            )
        # Beginning anywhere keeps a port that was just given back from being taken again at once.
        begin = random.randrange(len(self._ports))
        for port in (*self._ports[begin:], *self._ports[:begin]):
            try:
                return await super().create_datagram_endpoint(
                    protocol_factory, (local_addr[0], port), remote_addr, **options
                )
            except OSError as error:
                if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                    raise
        low, high = self._ports[0], self._ports[-1]
        raise OSError(errno.EADDRINUSE, f"all UDP ports of {low}-{high} are in use at {local_addr[0]}")


def make_loop_factory(ports: range | None) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the server's event loop; `ports` are the UDP ports for media, None for any."""
    return LimitedEventLoop if ports is None else lambda: PortRangeEventLoop(ports)
