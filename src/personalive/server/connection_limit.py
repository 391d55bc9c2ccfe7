"""Limits on HTTP connections, in all and for each address.

Clients that only hold a connection open keep nobody out: a new connection replaces the oldest one that has no
request in progress, at the same address if that has used its share, else at the address with most connections.
"""

from __future__ import annotations

import ipaddress
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from personalive.server.errors import make_error_response
from personalive.server.middleware import HEALTH_PATHS

_RETRY_AFTER_S = 1


class ClientConnection(Protocol):
    """A client's connection."""

    @property
    def is_waiting(self) -> bool:
        """Whether no answer is being made for it: it is idle, or its request is still arriving."""

    @property
    def is_idle(self) -> bool:
        """Whether no request's headers, or only a part of them, have arrived."""

    def abort(self) -> None:
        """Close the connection."""


class ConnectionLimiter:
    """Counter of connections by address. Use it on the event loop only."""

    def __init__(self, max_connections: int, max_per_address: int) -> None:
        """Set the limits on connections, in all and for one address."""
        self._max_connections = max_connections
        self._max_per_address = max_per_address
        self._by_address: dict[str, dict[ClientConnection, None]] = {}  # the oldest first

    def __len__(self) -> int:
        return sum(map(len, self._by_address.values()))

    def add(self, connection: ClientConnection, host: str) -> None:
        """Add a connection. If there are too many, abort another, or this one if all others are being answered."""
        of_one = self._by_address.setdefault(_network_of(host), {})
        of_one[connection] = None
        if len(of_one) > self._max_per_address:
            self._abort_oldest(of_one, exclude=connection)
        if len(self) > self._max_connections:
            largest = sorted(self._by_address.values(), key=len, reverse=True)
            if not any(self._abort_oldest(each, exclude=connection) for each in largest):
                self.remove(connection, host)
                connection.abort()

    def remove(self, connection: ClientConnection, host: str) -> None:
        """Remove a connection. This may be called again for the same one."""
        network = _network_of(host)
        of_one = self._by_address.get(network, {})
        of_one.pop(connection, None)
        if not of_one:
            self._by_address.pop(network, None)

    def is_over_limit(self, host: str) -> bool:
        """Return whether more requests of an address are being answered than it may have connections."""
        of_one = self._by_address.get(_network_of(host), {})
        return (
            len(of_one) > self._max_per_address
            and sum(not each.is_idle for each in of_one) > self._max_per_address
        )

    def _abort_oldest(self, connections: dict[ClientConnection, None], exclude: ClientConnection) -> bool:
        """Abort the oldest idle connection, else the oldest with an incomplete request; return whether one was."""
        others = [each for each in connections if each is not exclude]
        chosen = next((each for each in others if each.is_idle), None) or next(
            (each for each in others if each.is_waiting), None
        )
        if chosen is None:
            return False
        del connections[chosen]
        chosen.abort()
        return True


class ConnectionLimitMiddleware:
    """Middleware that refuses requests of an address beyond its share, except those for the server's health."""

    def __init__(self, app: ASGIApp, limiter: ConnectionLimiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503."""
        if scope["type"] == "http" and scope["path"] not in HEALTH_PATHS and self._is_over_limit(scope):
            headers = {"Retry-After": str(_RETRY_AFTER_S), "Connection": "close"}
            detail = "Too many requests of this address are being answered: try again in a moment."
            await make_error_response(503, detail, headers)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_over_limit(self, scope: Scope) -> bool:
        client = scope.get("client")
        return self._limiter.is_over_limit(client[0] if client else "")


def _network_of(host: str) -> str:
    """Return the address, or for IPv6 the network that a single client has."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a local socket
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))
