"""Who is connected by HTTP, and who has to go where there are too many.

Nobody is kept out by those who only hold a connection open: a newcomer takes the place of the oldest one that asks
for nothing, at its own address where that has its share already, else at the address that has most of all.
"""

from __future__ import annotations

import ipaddress
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from personalive.server.errors import problem
from personalive.server.middleware import HEALTH

_RETRY_AFTER_S = 1


class Connected(Protocol):
    """A client's connection."""

    @property
    def waits(self) -> bool:
        """Whether no answer is being made for it: it is idle, or its request is still coming."""

    @property
    def idles(self) -> bool:
        """Whether none of a request's headers, or only a part of them, are there."""

    def dismiss(self) -> None:
        """Close it."""


class Crowd:
    """Counts connections by address. Use it on the event loop only."""

    def __init__(self, most: int, most_of_one: int) -> None:
        """`most` in all, and of one address."""
        self._most = most
        self._most_of_one = most_of_one
        self._by_address: dict[str, dict[Connected, None]] = {}  # the oldest first

    def __len__(self) -> int:
        return sum(map(len, self._by_address.values()))

    def enter(self, connection: Connected, host: str) -> None:
        """A client has connected. Another one may have to go, or this one where all others are being answered."""
        of_one = self._by_address.setdefault(_network(host), {})
        of_one[connection] = None
        if len(of_one) > self._most_of_one:
            self._dismiss_one(of_one, but=connection)
        if len(self) > self._most:
            largest = sorted(self._by_address.values(), key=len, reverse=True)
            if not any(self._dismiss_one(each, but=connection) for each in largest):
                self.leave(connection, host)
                connection.dismiss()

    def leave(self, connection: Connected, host: str) -> None:
        """It has gone; it may have before."""
        network = _network(host)
        of_one = self._by_address.get(network, {})
        of_one.pop(connection, None)
        if not of_one:
            self._by_address.pop(network, None)

    def is_crowded(self, host: str) -> bool:
        """Whether more requests of an address are being answered than it may have connections."""
        of_one = self._by_address.get(_network(host), {})
        return len(of_one) > self._most_of_one and sum(not each.idles for each in of_one) > self._most_of_one

    def _dismiss_one(self, connections: dict[Connected, None], but: Connected) -> bool:
        """The oldest that asks for nothing, or else that is still asking. Whether there is one."""
        others = [each for each in connections if each is not but]
        chosen = next((each for each in others if each.idles), None) or next(
            (each for each in others if each.waits), None
        )
        if chosen is None:
            return False
        del connections[chosen]
        chosen.dismiss()
        return True


class CrowdGuard:
    """Refuses what an address asks for beyond its share, but for its question whether the server is well."""

    def __init__(self, app: ASGIApp, crowd: Crowd) -> None:
        self._app = app
        self._crowd = crowd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        if scope["type"] == "http" and scope["path"] not in HEALTH and self._is_crowded(scope):
            headers = {"Retry-After": str(_RETRY_AFTER_S), "Connection": "close"}
            detail = "Too many requests of this address are being answered: try again in a moment."
            await problem(503, detail, headers)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_crowded(self, scope: Scope) -> bool:
        client = scope.get("client")
        return self._crowd.is_crowded(client[0] if client else "")


def _network(host: str) -> str:
    """The address, or the network that one client of IPv6 has to itself."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a socket of this machine
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))
