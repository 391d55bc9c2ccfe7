"""Event loops that limit the number of UDP sockets, or keep them within a range of ports, for firewalls.

The ICE library asks its loop for any port and has no setting for a range, so the loop chooses a port of the range.
"""

from __future__ import annotations

import asyncio
import errno
import random
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

P = TypeVar("P", bound=asyncio.BaseProtocol)
T = TypeVar("T")


# The selector loop is used on Windows too, where asyncio's default is the proactor loop. That one can watch any
# number of sockets, but it closes the listening socket if a client disconnects before it is accepted. Before Python
# 3.13 it also stops receiving on a datagram socket that has sent to a closed port, as ICE does while it checks
# candidates. Neither the ICE nor the WebRTC library needs what only the proactor loop has, and no subprocess is
# started on the loop.
MAX_SOCKETS_PER_KIND = 248 if sys.platform == "win32" else None
"""The maximum of UDP sockets, and of HTTP connections. On Windows `select` takes 512 sockets, some of which are the
loop's own, and one more would end the loop."""


class PortRangeEventLoop(asyncio.SelectorEventLoop):
    """An event loop that refuses datagram sockets beyond `MAX_SOCKETS_PER_KIND`.

    If any port is asked for, it uses one of `ports`, or any if that is None.
    """

    def __init__(self, ports: range | None = None) -> None:
        super().__init__()
        self._ports = ports
        self._opened: WeakSet[asyncio.DatagramTransport] = WeakSet()

    async def create_datagram_endpoint(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], P],
        local_addr: tuple[str, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
        **options: Any,
    ) -> tuple[asyncio.DatagramTransport, P]:
        """Create a datagram endpoint as usual. Raises `OSError` where too many are open, or no port is free."""
        used = sum(not transport.is_closing() for transport in self._opened)
        if MAX_SOCKETS_PER_KIND is not None and used >= MAX_SOCKETS_PER_KIND:
            raise OSError(errno.EMFILE, "too many UDP sockets are open")
        create = partial(
            super().create_datagram_endpoint, protocol_factory, remote_addr=remote_addr, **options
        )
        if self._ports is None or local_addr is None or local_addr[1] != 0:
            made = await create(local_addr=local_addr)
        else:
            made = await _bind_to_one(create, local_addr[0], self._ports)
        self._opened.add(made[0])
        return made


async def _bind_to_one(create: Callable[..., Awaitable[T]], host: str, ports: range) -> T:
    # Starting at a random port avoids reusing a port at once that was just released.
    begin = random.randrange(len(ports))
    for port in (*ports[begin:], *ports[:begin]):
        try:
            return await create(local_addr=(host, port))
        except OSError as error:
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise
    raise OSError(errno.EADDRINUSE, f"all UDP ports of {ports[0]}-{ports[-1]} are in use at {host}")


def make_loop_factory(ports: range | None) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of the server's event loop; `ports` are the UDP ports for media, None for any."""
    return partial(PortRangeEventLoop, ports)
