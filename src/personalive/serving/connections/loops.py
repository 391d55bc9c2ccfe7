"""An event loop that opens UDP sockets within a range of ports, which firewalls can then let through.

The ICE library asks its loop for any port; there is no setting for it, so the loop is where the range is kept.
"""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable
from typing import Any, TypeVar

P = TypeVar("P", bound=asyncio.BaseProtocol)


class PortRangeLoop(asyncio.SelectorEventLoop):
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


def loop_factory(ports: range | None) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the server's event loop; `ports` are the UDP ports for media, None for any."""
    return asyncio.SelectorEventLoop if ports is None else lambda: PortRangeLoop(ports)
